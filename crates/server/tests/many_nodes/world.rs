//! Everything around the nodes: a database, a Redis with a replica, and a proxy before each for every node.

use std::net::SocketAddr;

use ::tidegate::Key;
use tidegate_testkit::history::{Commit, EndState, Value, WriteOrder};
use tidegate_testkit::proxy::Proxy;
use tidegate_testkit::servers::{Postgres, PostgresOptions, Redis, RedisAppend, RedisOptions};
use tokio::runtime::Runtime;

/// How one node reaches the others.
pub(crate) struct Ways {
    pub(crate) store: Proxy,
    pub(crate) shared: Option<Proxy>,
}

/// Two servers of which one is the primary, seen by everybody behind one address each.
pub(crate) struct Pair {
    servers: [Redis; 2],
    pub(crate) primary: usize,
    /// Between the replica and its primary.
    pub(crate) replication: Proxy,
}

impl Pair {
    pub(crate) fn primary(&mut self) -> &mut Redis {
        &mut self.servers[self.primary]
    }

    pub(crate) fn replica(&mut self) -> &mut Redis {
        &mut self.servers[1 - self.primary]
    }

    /// Until the replica has all that the primary has.
    pub(crate) fn wait_until_in_step(&self) {
        self.servers[1 - self.primary].wait_until_in_step_with(&self.servers[self.primary]);
    }
}

pub(crate) struct World {
    pub(crate) postgres: Postgres,
    database: String,
    pub(crate) shared: Option<Pair>,
    pub(crate) ways: Vec<Ways>,
    pub(crate) runtime: Runtime,
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl World {
    /// A world for so many nodes, with a shared cache or without.
    pub(crate) fn new(nodes: usize, with_shared: bool, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let postgres = Postgres::start_with(PostgresOptions {
            // Commits reach the files before they are answered: a killed server loses none, though a machine would.
            settings: vec![
                "deadlock_timeout=50ms".into(),
                "synchronous_commit=on".into(),
            ],
            ..PostgresOptions::default()
        });
        let database = postgres.fresh_database();
        let start = |target, seed| runtime.block_on(Proxy::start(target, seed)).unwrap();
        let shared = with_shared.then(|| {
            let options = RedisOptions {
                append: RedisAppend::EverySecond,
                // A replica that was cut off tries again at once, and is not waited for.
                arguments: ["--repl-diskless-sync-delay", "0"]
                    .map(str::to_owned)
                    .into(),
                ..RedisOptions::default()
            };
            let primary = Redis::start_as(options.clone());
            let replication = start(local(primary.port()), seed);
            let replica = Redis::start_as(RedisOptions {
                replica_of: Some(replication.port()),
                ..options
            });
            replica.wait_until_in_step_with(&primary);
            Pair {
                servers: [primary, replica],
                primary: 0,
                replication,
            }
        });
        let ways = (0..nodes).map(|node| {
            let seed = seed.wrapping_add(node as u64);
            let store = Proxy::postgres(local(postgres.port()), seed);
            let store = runtime.block_on(store).unwrap();
            let shared = shared
                .as_ref()
                .map(|pair| start(local(pair.servers[0].port()), seed));
            Ways { store, shared }
        });
        let ways = ways.collect();
        Self {
            postgres,
            database,
            shared,
            ways,
            runtime,
        }
    }

    /// The address of the database for a node.
    pub(crate) fn store_url(&self, node: usize) -> String {
        let port = self.ways[node].store.port();
        format!("postgres://postgres@127.0.0.1:{port}/{}", self.database)
    }

    /// The port of the shared cache for a node.
    pub(crate) fn shared_port(&self, node: usize) -> Option<u16> {
        self.ways[node].shared.as_ref().map(Proxy::port)
    }

    pub(crate) fn sql(&self, statements: &str) -> String {
        self.postgres.sql(&self.database, statements)
    }

    /// From now on every change of a row of these tables is remembered. It is numbered under the lock of the row, so
    /// that the numbers of a key have the order of its commits.
    pub(crate) fn remember_changes(&self, tables: &[&str]) {
        self.sql(include_str!("history.sql"));
        for table in tables {
            self.sql(&format!(
                "create trigger remember after insert or update or delete on {table} \
                 for each row execute function change_happened()"
            ));
        }
    }

    /// Waits until no statement and no transaction of anybody is under way in the database.
    pub(crate) fn wait_until_database_is_quiet(&self) {
        for _ in 0..600 {
            let busy = self.sql(
                "select count(*) from pg_stat_activity where backend_type = 'client backend' \
                 and state <> 'idle' and pid <> pg_backend_pid()",
            );
            if busy == "0" {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the database did not become quiet");
    }

    /// The changes of keys with this in their names, in their order: number, key, version and value.
    pub(crate) fn changes(&self, part: &str) -> String {
        self.sql(&format!(
            "select number, key, coalesce(version::text, ''), coalesce(value, '') from change \
             where key like '%:{part}%' order by number"
        ))
    }

    /// The order of the writes of a class among these changes.
    pub(crate) fn order(&self, changes: &str, class: &str) -> WriteOrder {
        let commits = changes.lines().filter_map(|row| {
            let [_, key, version, value] = row.split('|').collect::<Vec<_>>()[..] else {
                panic!("a change of four columns: {row}");
            };
            let rest = key.strip_prefix(class)?;
            let commit = Commit {
                version: version.parse().ok(),
                value: (!value.is_empty()).then(|| value.parse().unwrap()),
            };
            rest.starts_with(':').then(|| (Key::from(key), commit))
        });
        WriteOrder::of(commits)
    }

    /// Begins the memory of changes anew: runs have keys of their own.
    pub(crate) fn forget_changes(&self) {
        self.sql("truncate change");
    }

    /// The rows of these keys, without what nodes say of them.
    pub(crate) fn rows(&self, keys: &[String]) -> Vec<EndState> {
        let row = |key: &String| -> Option<Value> {
            let table = key.split(':').next().unwrap();
            let value = self.sql(&format!("select value from {table} where key = '{key}'"));
            (!value.is_empty()).then(|| value.parse().unwrap())
        };
        let state = |key| EndState {
            key: Key::from(String::as_str(key)),
            row: row(key),
            nodes: Vec::new(),
        };
        keys.iter().map(state).collect()
    }

    /// Nothing is wrong with any way any more.
    pub(crate) fn heal(&self) {
        for ways in &self.ways {
            ways.store.heal();
            if let Some(shared) = &ways.shared {
                shared.heal();
            }
        }
        if let Some(pair) = &self.shared {
            pair.replication.heal();
        }
    }
}
