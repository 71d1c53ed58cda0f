//! Nodes as they are mostly written: over PostgreSQL and Redis, without versions, marks or leases. And, to know that
//! the harness accuses nobody wrongly, nodes that leave the cache alone.

use std::sync::Arc;
use std::time::Duration;

use tidegate_resp::Reply;
use tidegate_testkit::history::{Outcome, Value};
use tokio::sync::watch;
use tokio_postgres::NoTls;

use crate::redis_wire::Connection;
use crate::subject::{Client, Nodes, Subject, Told};
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(2);

/// What nodes do with the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CacheUse {
    /// Nothing: every answer is the database's. Against that one, nothing may be found.
    None,
    /// Readers fill it, and writers set their value when its commit is there.
    SetAfterCommit,
    /// Readers fill it, and writers delete from it when their commit is there.
    DeleteAfterCommit,
}

/// Whether a node lives, and whether it moves.
#[derive(Clone, Copy, Default)]
struct Life {
    deaths: u64,
    is_dead: bool,
    is_paused: bool,
}

struct Node {
    store_url: String,
    shared_port: u16,
    life: watch::Sender<Life>,
}

pub(crate) struct Naive {
    cache_use: CacheUse,
    nodes: Vec<Arc<Node>>,
}

impl Naive {
    /// The nodes of a world, and the table they keep their rows in.
    pub(crate) fn new(world: &World, cache_use: CacheUse) -> Self {
        world.sql("create table hot (key text primary key, value text not null)");
        world.remember_changes(&["hot"]);
        let node = |number| {
            Arc::new(Node {
                store_url: world.store_url(number),
                shared_port: world.shared_port(number).unwrap(),
                life: watch::Sender::default(),
            })
        };
        Self {
            cache_use,
            nodes: (0..world.ways.len()).map(node).collect(),
        }
    }
}

impl Nodes for Naive {
    fn count(&self) -> usize {
        self.nodes.len()
    }

    fn kill(&self, node: usize) {
        self.nodes[node].life.send_modify(|life| {
            life.deaths += 1;
            life.is_dead = true;
        });
    }

    fn start(&self, node: usize) {
        let life = &self.nodes[node].life;
        life.send_modify(|life| (life.is_dead, life.is_paused) = (false, false));
    }

    fn pause(&self, node: usize) {
        self.nodes[node]
            .life
            .send_modify(|life| life.is_paused = true);
    }

    fn resume(&self, node: usize) {
        self.nodes[node]
            .life
            .send_modify(|life| life.is_paused = false);
    }
}

impl Subject for Naive {
    type Client = NaiveClient;

    fn client(&self, node: usize) -> NaiveClient {
        let node = &self.nodes[node];
        NaiveClient {
            life: node.life.subscribe(),
            inner: Inner {
                cache_use: self.cache_use,
                life: node.life.subscribe(),
                node: Arc::clone(node),
                store: None,
                shared: None,
            },
        }
    }
}

/// One of the connections of a node, used by one client.
pub(crate) struct NaiveClient {
    life: watch::Receiver<Life>,
    inner: Inner,
}

/// What a client asks for.
enum Ask {
    Read,
    /// Puts this, or deletes.
    Change(Option<String>),
}

impl Client for NaiveClient {
    async fn read(&mut self, key: &str) -> Told {
        self.carry_out(key, Ask::Read).await
    }

    async fn write(&mut self, key: &str, value: Value) -> Told {
        let value = Some(value.to_string());
        self.carry_out(key, Ask::Change(value)).await
    }

    async fn delete(&mut self, key: &str) -> Told {
        self.carry_out(key, Ask::Change(None)).await
    }
}

impl NaiveClient {
    /// Asks, unless the node dies over it or takes too long.
    async fn carry_out(&mut self, key: &str, ask: Ask) -> Told {
        let life = *self.life.borrow_and_update();
        if life.is_dead {
            tokio::time::sleep(Duration::from_millis(5)).await;
            return Told::of(Outcome::Failed);
        }
        let told = tokio::select! {
            told = self.inner.carry_out(key, ask) => Some(told),
            _ = self.life.wait_for(|now| now.deaths > life.deaths) => None,
            () = tokio::time::sleep(PATIENCE) => None,
        };
        told.unwrap_or_else(|| {
            (self.inner.store, self.inner.shared) = (None, None);
            Told::of(Outcome::Indeterminate)
        })
    }
}

/// The steps of an operation.
struct Inner {
    cache_use: CacheUse,
    life: watch::Receiver<Life>,
    node: Arc<Node>,
    store: Option<tokio_postgres::Client>,
    shared: Option<Connection>,
}

impl Inner {
    async fn carry_out(&mut self, key: &str, ask: Ask) -> Told {
        match ask {
            Ask::Read => self.read(key).await,
            Ask::Change(value) => self.change(key, value.as_deref()).await,
        }
    }

    /// Whoever is paused stands still between two steps.
    async fn step(&mut self) {
        // The node outlives its clients.
        let _ = self.life.wait_for(|life| !life.is_paused).await;
    }

    /// From the cache, or from the database into the cache.
    async fn read(&mut self, key: &str) -> Told {
        if let Some(Reply::Bulk(bytes)) = self.ask_shared(&["GET", key]).await {
            let mut told = Told::done(Some(parse(&bytes)));
            told.hit = Some(true);
            return told;
        }
        let select = "select value from hot where key = $1";
        let value = match self.ask_store(select, &[&key]).await {
            Ok(rows) => rows.first().map(|row| row.get::<_, String>(0)),
            Err(outcome) => return Told::of(outcome),
        };
        if let Some(value) = &value {
            self.ask_shared(&["SET", key, value]).await;
        }
        let mut told = Told::done(value.map(|value| parse(value.as_bytes())));
        told.hit = Some(false);
        told
    }

    /// Into the database, and then the cache is told.
    async fn change(&mut self, key: &str, value: Option<&str>) -> Told {
        let put = "insert into hot (key, value) values ($1, $2) \
                   on conflict (key) do update set value = excluded.value";
        let committed = match &value {
            Some(value) => self.ask_store(put, &[&key, value]).await,
            None => {
                self.ask_store("delete from hot where key = $1", &[&key])
                    .await
            }
        };
        if let Err(outcome) = committed {
            return Told::of(outcome);
        }
        match value.filter(|_| self.cache_use == CacheUse::SetAfterCommit) {
            Some(value) => self.ask_shared(&["SET", key, value]).await,
            None => self.ask_shared(&["DEL", key]).await,
        };
        Told::done(None)
    }

    /// Nothing if the cache cannot be asked, which is taken for a miss.
    async fn ask_shared(&mut self, arguments: &[&str]) -> Option<Reply> {
        if self.cache_use == CacheUse::None {
            return None;
        }
        self.step().await;
        let mut connection = match self.shared.take() {
            Some(connection) => connection,
            None => Connection::open(self.node.shared_port).await.ok()?,
        };
        let reply = connection.ask(arguments).await.ok()?;
        self.shared = Some(connection);
        Some(reply)
    }

    async fn ask_store(
        &mut self,
        statement: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, Outcome> {
        self.step().await;
        let client = match self.store.take() {
            Some(client) => client,
            None => {
                let connect = tokio_postgres::connect(&self.node.store_url, NoTls);
                let (client, connection) = connect.await.map_err(|_| Outcome::Failed)?;
                // Ends with the client.
                tokio::spawn(connection);
                client
            }
        };
        match client.query(statement, parameters).await {
            Ok(rows) => {
                self.store = Some(client);
                Ok(rows)
            }
            Err(error) => Err(match error.code() {
                // What the server says of a statement is for certain, unless it says that it is going away.
                Some(code) if !code.code().starts_with("57") => Outcome::Failed,
                _ => Outcome::Indeterminate,
            }),
        }
    }
}

fn parse(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}
