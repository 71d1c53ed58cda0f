//! Nodes that are tidegate servers, in processes of their own.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_resp::Reply;
use tidegate_testkit::history::{Outcome, Value};

use crate::promise::Class;
use crate::redis_wire::Connection;
use crate::subject::{Client, Hits, Nodes, Subject, Told};
use crate::support::{self, Folder, Server};
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(2);

struct Node {
    folder: Folder,
    server: Mutex<Option<Server>>,
    /// Where it listens; 0 while it does not run.
    port: AtomicU16,
}

pub(crate) struct Tidegate {
    nodes: Vec<Arc<Node>>,
    /// What those counted that were killed since.
    counted: Mutex<Hits>,
}

/// Timeouts as they would be in one room: a fault is to be longer than any of them.
const SHARED: &str = "
    mark_timeout = '400ms'
    response_timeout = '250ms'
    connect_timeout = '250ms'
    lease = '200ms'
";

impl Tidegate {
    /// A node for each way of the world. What each is given is `[store]`, `[shared]` if the world has a shared cache,
    /// and these classes, whose tables are named as they are and hold readable text; and a class of numbers.
    pub(crate) fn new(world: &World, classes: &[Class]) -> Self {
        let mut tables = String::new();
        let numbers = ("count", "strategy = 'write-through'");
        let classes = classes.iter().map(|class| (class.name, class.settings));
        let classes: Vec<_> = classes.chain([numbers]).collect();
        for (name, settings) in &classes {
            tables += &format!(
                "[[class]]\nname = '{name}'\nkeys = '{name}:*'\nvalue_type = 'text'\nload_timeout = '1s'\n{settings}\n"
            );
        }
        let nodes = (0..world.ways.len()).map(|number| {
            let mut config = format!("[store]\nurl = '{}'\n", world.store_url(number));
            if let Some(port) = world.shared_port(number) {
                config += &format!("[shared]\nurl = 'redis://127.0.0.1:{port}'\n{SHARED}");
            }
            let folder = Folder::new();
            folder.write("tidegate.toml", &(config + &tables));
            Arc::new(Node {
                folder,
                server: Mutex::new(None),
                port: AtomicU16::new(0),
            })
        });
        let this = Self {
            nodes: nodes.collect(),
            counted: Mutex::default(),
        };
        for node in 0..this.nodes.len() {
            this.start(node);
        }
        // The tables are there once a node has started.
        let tables: Vec<&str> = classes.iter().map(|(name, _)| *name).collect();
        world.remember_changes(&tables);
        this
    }
}

impl Node {
    /// What it has counted since it was started, if it says so soon.
    fn hits(&self) -> Option<Hits> {
        let port = self.port.load(Ordering::Acquire);
        let mut client = support::Client::try_connect(port).ok()?;
        let patience = Some(Duration::from_millis(300));
        client.stream.set_read_timeout(patience).ok()?;
        let mut hits = Hits::default();
        for section in ["stats", "shared", "tidegate"] {
            let Ok(Some(Reply::Bulk(text))) = client.try_ask(&format!("INFO {section}")) else {
                return None;
            };
            let text = String::from_utf8_lossy(&text).into_owned();
            let figure = |name: &str| -> u64 {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.map_or(0, |line| line.trim().parse().unwrap())
            };
            hits.near += figure("keyspace_hits:");
            hits.shared += figure("shared_hits:");
            let classes = text.lines().filter_map(|line| {
                let (class, figures) = line.strip_prefix("class_")?.split_once(':')?;
                let misses = figures.split(',').find_map(|f| f.strip_prefix("misses="))?;
                Some((class.to_owned(), misses.parse::<u64>().unwrap()))
            });
            hits.misses.extend(classes);
        }
        Some(hits)
    }
}

impl Nodes for Tidegate {
    fn count(&self) -> usize {
        self.nodes.len()
    }

    fn kill(&self, node: usize) {
        let node = &self.nodes[node];
        let mut counted = self.counted.lock().unwrap();
        let before = std::mem::take(&mut *counted);
        *counted = before.and(node.hits().unwrap_or_default());
        node.port.store(0, Ordering::Release);
        if let Some(server) = node.server.lock().unwrap().take() {
            server.kill9();
        }
    }

    fn start(&self, node: usize) {
        let node = &self.nodes[node];
        let mut server = node.server.lock().unwrap();
        if server.is_some() {
            return;
        }
        let config = node.folder.path().join("tidegate.toml");
        // A database that is only just back may refuse the first start.
        for _ in 0..100 {
            let started = node
                .folder
                .try_serve(&["--config", config.to_str().unwrap()], &[]);
            if let Ok(started) = started {
                node.port.store(started.port(), Ordering::Release);
                *server = Some(started);
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("a node did not start\n{}", node.folder.stderr());
    }

    fn pause(&self, node: usize) {
        if let Some(server) = &*self.nodes[node].server.lock().unwrap() {
            server.signal("STOP");
        }
    }

    fn resume(&self, node: usize) {
        if let Some(server) = &*self.nodes[node].server.lock().unwrap() {
            server.signal("CONT");
        }
    }

    fn hits(&self) -> Option<Hits> {
        let counted = self.counted.lock().unwrap().clone();
        let nodes = self.nodes.iter().filter_map(|node| node.hits());
        Some(nodes.fold(counted, Hits::and))
    }

    fn said(&self) -> Vec<String> {
        let nodes = self.nodes.iter();
        nodes.map(|node| node.folder.stderr()).collect()
    }
}

impl Subject for Tidegate {
    type Client = TidegateClient;

    fn client(&self, node: usize) -> TidegateClient {
        TidegateClient {
            node: Arc::clone(&self.nodes[node]),
            connection: None,
        }
    }
}

pub(crate) struct TidegateClient {
    node: Arc<Node>,
    connection: Option<Connection>,
}

impl TidegateClient {
    /// The outcome, and the answer if it is done. A connection that broke is left behind.
    async fn ask(&mut self, arguments: &[&str]) -> Result<Reply, Outcome> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let port = self.node.port.load(Ordering::Acquire);
                let opened = if port > 0 {
                    Connection::open(port).await.ok()
                } else {
                    None
                };
                let Some(connection) = opened else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    return Err(Outcome::Failed);
                };
                connection
            }
        };
        let answer = tokio::time::timeout(PATIENCE, connection.ask(arguments)).await;
        let Ok(Ok(reply)) = answer else {
            return Err(Outcome::Indeterminate);
        };
        self.connection = Some(connection);
        match reply {
            Reply::Error(text) => {
                // A node that answers at once that something is away is not asked as fast as it can say so.
                tokio::time::sleep(Duration::from_millis(2)).await;
                Err(outcome_of(&text))
            }
            reply => Ok(reply),
        }
    }
}

/// What an error says of what was asked, by its first word.
fn outcome_of(text: &[u8]) -> Outcome {
    let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    match word {
        b"UNKNOWN" => Outcome::Indeterminate,
        b"UNAVAILABLE" | b"OVERLOADED" | b"CLOSED" | b"REFUSED" => Outcome::Failed,
        _ => panic!(
            "no such error is expected: {}",
            String::from_utf8_lossy(text)
        ),
    }
}

impl Client for TidegateClient {
    async fn read(&mut self, key: &str) -> Told {
        match self.ask(&["GET", key]).await {
            Ok(Reply::Bulk(bytes)) => {
                let text = std::str::from_utf8(&bytes).unwrap();
                Told::done(Some(text.parse().unwrap()))
            }
            Ok(Reply::Null) => Told::done(None),
            Ok(other) => panic!("GET was answered with {other:?}"),
            Err(outcome) => Told::of(outcome),
        }
    }

    async fn write(&mut self, key: &str, value: Value) -> Told {
        match self.ask(&["SET", key, &value.to_string()]).await {
            Ok(reply) if reply == support::ok() => Told::done(None),
            Ok(other) => panic!("SET was answered with {other:?}"),
            Err(outcome) => Told::of(outcome),
        }
    }

    async fn delete(&mut self, key: &str) -> Told {
        match self.ask(&["DEL", key]).await {
            Ok(Reply::Integer(_)) => Told::done(None),
            Ok(other) => panic!("DEL was answered with {other:?}"),
            Err(outcome) => Told::of(outcome),
        }
    }

    async fn add(&mut self, key: &str) -> Result<i64, Outcome> {
        match self.ask(&["INCR", key]).await? {
            Reply::Integer(number) => Ok(number),
            other => panic!("INCR was answered with {other:?}"),
        }
    }
}
