//! One PostgreSQL, one Redis, and as many servers over them as a test wants.

use std::thread;
use std::time::{Duration, Instant};

use tidegate_resp::Reply;
use tidegate_testkit::servers::{Postgres, Redis};

use crate::support::{Client, Folder, Server};

/// What several nodes share.
pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) database: String,
}

/// A server and its folder.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) folder: Folder,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::over(Redis::start())
    }

    pub(crate) fn over(redis: Redis) -> Self {
        Self {
            redis,
            database: Postgres::shared().fresh_database(),
        }
    }

    /// A configuration for a node, with more keys of `[shared]`, and then more tables.
    pub(crate) fn config(&self, shared: &str, more: &str) -> String {
        format!(
            "[server]\nadmin = '127.0.0.1:0'\n[store]\nurl = '{}'\n[shared]\nurl = '{}'\n{shared}\n{more}\n",
            Postgres::shared().url(&self.database),
            self.redis.url(),
        )
    }

    /// Starts nodes of one configuration.
    pub(crate) fn start<const N: usize>(&self, shared: &str, more: &str) -> [Node; N] {
        let config = self.config(shared, more);
        std::array::from_fn(|_| Node::start(&config))
    }

    /// Runs statements in the database of the nodes, by a client that is not theirs.
    pub(crate) fn sql(&self, statements: &str) -> String {
        Postgres::shared().sql(&self.database, statements)
    }
}

impl Node {
    pub(crate) fn start(config: &str) -> Self {
        let folder = Folder::new();
        let server = folder.serve_config(config);
        Self { server, folder }
    }

    /// Tries to start; what it said to its error stream if it ended at once.
    pub(crate) fn try_start(config: &str) -> Result<Self, String> {
        let folder = Folder::new();
        let path = folder.write("tidegate.toml", config);
        match folder.try_serve(&["--config", path.to_str().unwrap()], &[]) {
            Ok(server) => Ok(Self { server, folder }),
            Err(_) => Err(folder.stderr()),
        }
    }

    pub(crate) fn connect(&self) -> Client {
        self.server.connect()
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// Ends it in order, and expects that nothing is left.
    pub(crate) fn end(self) {
        assert_eq!(self.server.terminate(), 0, "{}", self.folder.stderr());
    }

    /// A figure of `INFO shared`.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let text = info(&mut self.connect(), "shared");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {value}"))
    }

    /// How many keys of a class it asked of the store.
    pub(crate) fn loads(&self, class: &str) -> u64 {
        let text = info(&mut self.connect(), "tidegate");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("class_{class}:")))
            .unwrap_or_else(|| panic!("no class {class} in\n{text}"));
        let loads = line
            .split(',')
            .find_map(|figure| figure.strip_prefix("loads="));
        loads.unwrap().parse().unwrap()
    }

    /// The status and the words of `/readyz`.
    pub(crate) fn ready(&self) -> (u16, String) {
        http(self.admin_port(), "/readyz")
    }

    pub(crate) fn admin_port(&self) -> u16 {
        let words = self.server.words();
        let after = words.split_once("http://127.0.0.1:").unwrap().1;
        after.split_once('/').unwrap().0.parse().unwrap()
    }
}

pub(crate) fn info(client: &mut Client, section: &str) -> String {
    match client.ask(&format!("INFO {section}")) {
        Reply::Bulk(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The status and the body of a page.
pub(crate) fn http(port: u16, path: &str) -> (u16, String) {
    use std::io::{Read, Write};

    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The number that a key holds, absent counting as nought; or what the server says instead.
pub(crate) fn read_number(client: &mut Client, key: &str) -> Result<u64, String> {
    match client.ask(&format!("GET {key}")) {
        Reply::Null => Ok(0),
        Reply::Bulk(text) => Ok(std::str::from_utf8(&text).unwrap().parse().unwrap()),
        Reply::Error(text) => Err(String::from_utf8_lossy(&text).into_owned()),
        other => panic!("{other:?}"),
    }
}

/// Asks again and again until it is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "waited half a minute until {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
