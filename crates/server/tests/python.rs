//! Python's Redis client, unchanged, on a server with three classes of three strategies; what it was told is
//! then looked up in the database itself, by a client that is not tidegate's.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

#[path = "support/interpreter.rs"]
mod interpreter;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use interpreter::script;
use tempfile::TempDir;
use tidegate_testkit::servers::Postgres;

/// Orders written through, sessions written back, page views written around.
const CLASSES: &str = r#"
[[class]]
name = "order"
keys = "order:*"
strategy = "write-through"

[[class]]
name = "session"
keys = "session:*"
strategy = "write-back"
linger = "200ms"

[[class]]
name = "view"
keys = "view:*"
strategy = "write-around"
ttl = "1m"
"#;

/// A server that ends with this value.
struct Server {
    process: Child,
    port: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(folder.join("shop.toml"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        assert!(
            line.contains("listening on 127.0.0.1:"),
            "the server did not start: {line}"
        );
        // The rest of what it says must not fill the pipe.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Self { process, port }
    }

    /// Ends it in order: what is dirty goes to the store first.
    fn end(mut self) {
        let kill = format!("kill -TERM {}", self.process.id());
        assert!(
            Command::new("/bin/sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the server ended with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the shop on a store. `rows` reads a table of it, as lines `key|value`.
fn open_shop(store: &str, rows: impl Fn(&Path, &str) -> Vec<String>) {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let config = format!("data_dir = \"data\"\n{store}\n{CLASSES}");
    std::fs::write(folder.join("shop.toml"), config).unwrap();

    let server = Server::start(folder);
    let expected = script("shop.py", [&server.port, "write"]);
    let expect = |table: &str| {
        let prefix = format!("{table}:");
        let expected: BTreeSet<_> = expected
            .iter()
            .filter(|row| row.starts_with(&prefix))
            .cloned()
            .collect();
        assert!(expected.len() > 1, "the shop wrote nothing to {table}");
        expected
    };
    let found = |table: &str| BTreeSet::from_iter(rows(folder, table));

    // Written through and around: in the database before the client was answered.
    assert_eq!(found("order"), expect("order"));
    assert_eq!(found("view"), expect("view"));
    // Written back: in the database after the linger.
    wait_until("the sessions are in the database", || {
        found("session") == expect("session")
    });

    // And a server that begins with nothing in memory finds all of it.
    server.end();
    let server = Server::start(folder);
    script("shop.py", [&server.port, "read"]);
    server.end();
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process has no clock to step"
)]
fn wait_until(what: &str, ready: impl Fn() -> bool) {
    for _ in 0..200 {
        if ready() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited ten seconds until {what}");
}

#[test]
fn a_shop_on_the_embedded_default() {
    open_shop("", |folder, table| {
        let file = folder.join("data/store.db");
        script("rows.py", [file.as_os_str(), OsStr::new(table)])
    });
}

#[test]
fn a_shop_on_postgres() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let store = format!("[store]\nurl = \"{}\"", postgres.url(&database));
    open_shop(&store, |_, table| {
        let query = format!(
            "select key, value from \"{table}\" where expires_at is null or expires_at > now()"
        );
        let rows = postgres.sql(&database, &query);
        rows.lines().map(str::to_owned).collect()
    });
}
