//! A private Redis Cluster: three primaries, each with a third of the slots, and a replica each if asked for.

use super::process;
use super::redis::{Redis, RedisOptions};
use super::redis_admin::RedisAnswer;

const PRIMARIES: usize = 3;
const SLOTS: usize = 16384;

/// How a cluster is started.
#[derive(Clone, Debug, Default)]
pub struct RedisClusterOptions {
    /// Whether every primary has a replica, which takes its place when it is gone.
    pub replicas: bool,
    /// How each node is started; it is a node of a cluster in any case.
    pub node: RedisOptions,
}

/// Redis servers that know each other, and end with this value.
pub struct RedisCluster {
    /// The primaries first, then a replica of each in the same order.
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts three primaries without replicas.
    ///
    /// # Panics
    /// If Redis is not installed or the nodes do not find each other.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&RedisClusterOptions::default())
    }

    /// The same with options. A node that is gone for two seconds is replaced, if it has a replica.
    ///
    /// # Panics
    /// If Redis is not installed or the nodes do not find each other.
    #[must_use]
    pub fn start_with(options: &RedisClusterOptions) -> Self {
        let count = PRIMARIES * (1 + usize::from(options.replicas));
        let mut node = options.node.clone();
        node.cluster = true;
        let timeout = ["--cluster-node-timeout", "2000"].map(str::to_owned);
        node.arguments.splice(0..0, timeout);
        let nodes = (0..count).map(|_| Redis::start_as(node.clone())).collect();
        let cluster = Self { nodes };
        cluster.join(options.replicas);
        cluster
    }

    fn join(&self, replicas: bool) {
        for (i, node) in self.nodes.iter().enumerate() {
            // Nodes that were born with the same epoch would first have to agree who is the newer.
            node.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]);
            if i < PRIMARIES {
                let first = SLOTS * i / PRIMARIES;
                let last = SLOTS * (i + 1) / PRIMARIES - 1;
                let (first, last) = (first.to_string(), last.to_string());
                node.tell(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
            let (port, bus_port) = (node.port().to_string(), node.bus_port().to_string());
            for other in &self.nodes[..i] {
                other.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
            }
        }
        let everybody = self.nodes.len().to_string();
        process::wait_until("the nodes of a cluster to know each other", || {
            let knows = |node: &Redis| cluster_info(node, "cluster_known_nodes") == everybody;
            self.nodes.iter().all(knows)
        });
        if replicas {
            for (primary, replica) in self.nodes[..PRIMARIES].iter().zip(&self.nodes[PRIMARIES..]) {
                let id = primary.tell(&["CLUSTER", "MYID"]).text();
                process::wait_until(
                    "a node to know its primary",
                    || matches!(replica.ask(&["CLUSTER", "REPLICATE", &id]), Ok(answer) if answer.is_ok()),
                );
            }
            for (primary, replica) in self.nodes[..PRIMARIES].iter().zip(&self.nodes[PRIMARIES..]) {
                replica.wait_until_in_step_with(primary);
            }
        }
        self.wait_until_ok();
    }

    /// Waits until every node that runs says that all slots are served.
    ///
    /// # Panics
    /// After half a minute.
    pub fn wait_until_ok(&self) {
        process::wait_until("a cluster to serve all slots", || {
            let mut running = self.nodes.iter().filter(|node| node.pid().is_some());
            running.all(|node| cluster_info(node, "cluster_state") == "ok")
        });
    }

    /// The nodes: three primaries, as they were when it started, and then a replica of each, if there are any.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// One node, to do something to it.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&mut self, number: usize) -> &mut Redis {
        &mut self.nodes[number]
    }

    /// The addresses of all nodes as clients take them.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// The slot of a key.
    ///
    /// # Panics
    /// If the first node cannot be asked.
    #[must_use]
    pub fn slot_of(&self, key: &[u8]) -> u16 {
        match self.nodes[0].tell(&[b"CLUSTER", b"KEYSLOT", key]) {
            RedisAnswer::Integer(slot) => u16::try_from(slot).expect("there are 16384 slots"),
            other => panic!("no slot: {other:?}"),
        }
    }

    /// The number of the node that serves a slot, as the first node that runs sees it.
    #[must_use]
    pub fn owner_of(&self, slot: u16) -> Option<usize> {
        let node = self.nodes.iter().find(|node| node.pid().is_some())?;
        let RedisAnswer::List(ranges) = node.tell(&["CLUSTER", "SLOTS"]) else {
            return None;
        };
        ranges.iter().find_map(|range| {
            let RedisAnswer::List(range) = range else {
                return None;
            };
            let [
                RedisAnswer::Integer(first),
                RedisAnswer::Integer(last),
                RedisAnswer::List(owner),
                ..,
            ] = &range[..]
            else {
                return None;
            };
            let [_, RedisAnswer::Integer(port), ..] = &owner[..] else {
                return None;
            };
            let within = (*first..=*last).contains(&i64::from(slot));
            let position = || {
                let port = u16::try_from(*port).ok();
                self.nodes.iter().position(|node| Some(node.port()) == port)
            };
            within.then(position).flatten()
        })
    }

    /// Begins to move a slot between two primaries: from now on keys that are not in `from` any more are asked
    /// for in `to`. Everything stays so until the rest is done, so that a test can stand in the middle.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) -> SlotMove<'_> {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let [from_id, to_id] = [from, to].map(|node| node.tell(&["CLUSTER", "MYID"]).text());
        let slot = slot.to_string();
        to.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        SlotMove {
            cluster: self,
            slot,
            from,
            to,
            to_id,
        }
    }
}

/// A slot on its way. Dropped, it stays on its way.
#[must_use = "a slot stays on its way until it is finished"]
pub struct SlotMove<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    from: &'a Redis,
    to: &'a Redis,
    to_id: String,
}

impl SlotMove<'_> {
    /// The keys of the slot that are still where they were, at most so many.
    ///
    /// # Panics
    /// If the node cannot be asked.
    #[must_use]
    pub fn keys(&self, count_max: usize) -> Vec<Vec<u8>> {
        let count_max = count_max.to_string();
        let answer = self
            .from
            .tell(&["CLUSTER", "GETKEYSINSLOT", &self.slot, &count_max]);
        let RedisAnswer::List(keys) = answer else {
            return Vec::new();
        };
        keys.into_iter()
            .filter_map(|key| match key {
                RedisAnswer::Text(key) => Some(key),
                _ => None,
            })
            .collect()
    }

    /// Moves these keys.
    ///
    /// # Panics
    /// If the node refuses.
    pub fn move_keys(&self, keys: &[Vec<u8>]) {
        let port = self.to.port().to_string();
        let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let mut words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        words.extend(keys.iter().map(Vec::as_slice));
        if !keys.is_empty() {
            self.from.tell(&words);
        }
    }

    /// Moves what is left, and tells every node that the slot has a new owner.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn finish(self) {
        loop {
            let keys = self.keys(100);
            if keys.is_empty() {
                break;
            }
            self.move_keys(&keys);
        }
        // First the one that has the keys now: if everybody else forgot it, they would be nowhere.
        let primaries = self.cluster.nodes.iter().take(PRIMARIES);
        let others = primaries.filter(|node| node.port() != self.to.port());
        for node in std::iter::once(self.to).chain(others) {
            if node.pid().is_some() {
                node.tell(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.to_id]);
            }
        }
    }
}

fn cluster_info(node: &Redis, name: &str) -> String {
    let told = node.tell(&["CLUSTER", "INFO"]).text();
    let mut values = told.lines().filter_map(|line| line.split_once(':'));
    let found = values.find(|(found, _)| *found == name);
    found
        .map(|found| found.1.trim().to_owned())
        .unwrap_or_default()
}
