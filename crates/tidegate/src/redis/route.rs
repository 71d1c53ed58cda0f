//! Which server has which shard: one server has all, or those of a cluster share them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, ConnectionAddr, ConnectionInfo, Value};
use tidegate_core::port::{Shard, SharedError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::connect::{Live, about, connect};
use super::error::{Address, odd};
use super::names::{Names, SLOTS};
use super::node::{Dialling, Node};

/// How often a cluster is asked who has which slot, beside when something hints at a change.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// How long a server without a shard counts as one that has keys of ours, after it was asked for one.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// All servers of a shared cache.
pub(super) struct Servers {
    map: Arc<Map>,
    /// The one that has all, unless they are a cluster.
    only: Option<Arc<Node>>,
    /// Asks who has which slot.
    refresher: Option<JoinHandle<()>>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(refresher) = &self.refresher {
            refresher.abort();
        }
    }
}

struct Map {
    seeds: Vec<ConnectionInfo>,
    dialling: Dialling,
    /// The slot of each shard.
    slots: Vec<u16>,
    places: Mutex<Places>,
    /// Rises with every change of the owners.
    changes: watch::Sender<u64>,
    hint: Notify,
}

#[derive(Default)]
struct Places {
    nodes: HashMap<Option<Address>, Arc<Node>>,
    /// Of each shard; there is none for the one server that has all.
    owners: Vec<Option<Address>>,
    /// Where keys of slots on their way were asked for, and when last. What was found there changes there.
    asked: HashMap<Address, Duration>,
}

/// What a command that only looks must be sent with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Replicas {
    /// They answer with what they have: the server is to show that it is none.
    Answer,
    /// They send callers to their primary.
    Redirect,
}

impl Servers {
    /// Finds out whether it is a cluster, and connects.
    ///
    /// # Errors
    /// If no server answers, or none can serve.
    pub(super) async fn open(
        seeds: &[ConnectionInfo],
        names: &Names,
        dialling: Dialling,
    ) -> Result<Self, SharedError> {
        let is_cluster = is_cluster(seeds, &dialling).await?;
        let slots = (0..names.shards())
            .map(|shard| Ok(names.shard(Shard(shard))?.slot))
            .collect::<Result<Vec<_>, SharedError>>()?;
        let mut places = Places {
            owners: vec![None; slots.len()],
            ..Places::default()
        };
        let only = (!is_cluster).then(|| Arc::new(Node::begin(seeds.to_vec(), dialling.clone())));
        if let Some(node) = &only {
            places.nodes.insert(None, Arc::clone(node));
        } else if seeds.iter().any(|seed| seed.redis_settings().db() != 0) {
            return Err(SharedError::configuration(
                "a Redis Cluster has no database but 0: leave out the number after the address",
            ));
        }
        let map = Arc::new(Map {
            seeds: seeds.to_vec(),
            dialling,
            slots,
            places: Mutex::new(places),
            changes: watch::Sender::new(0),
            hint: Notify::new(),
        });
        let mut servers = Self {
            map: Arc::clone(&map),
            only,
            refresher: None,
        };
        if is_cluster {
            map.refresh().await?;
            servers.refresher = Some(tokio::spawn(async move {
                loop {
                    tokio::select! {
                        () = map.hint.notified() => {}
                        () = map.dialling.clock.sleep(REFRESH_EVERY) => {}
                    }
                    if let Err(error) = map.refresh().await {
                        tracing::debug!(%error, "who has which slot is not known");
                        map.dialling.clock.sleep(Duration::from_millis(50)).await;
                    }
                }
            }));
        }
        if !is_cluster {
            servers.node(Shard(0))?.live().await?;
        }
        Ok(servers)
    }

    /// What a command that only looks must be sent with.
    pub(super) fn replicas(&self) -> Replicas {
        match self.only {
            Some(_) => Replicas::Answer,
            None => Replicas::Redirect,
        }
    }

    /// The connection to the one server, if it is one and connected.
    pub(super) fn only_live(&self) -> Option<Arc<Live>> {
        self.only.as_ref()?.live_now()
    }

    /// The server of a shard.
    pub(super) fn node(&self, shard: Shard) -> Result<Arc<Node>, SharedError> {
        if let Some(node) = &self.only {
            return Ok(Arc::clone(node));
        }
        let places = self.map.lock();
        let owner = places.owners.get(usize::from(shard.0));
        let node = owner.and_then(|owner| places.nodes.get(owner));
        node.cloned().ok_or_else(|| {
            self.map.hint.notify_one();
            SharedError::unavailable(format_args!("no server has shard {}", shard.0))
        })
    }

    /// The server to which a slot is on its way, and which is to be asked for a key of it.
    pub(super) fn node_asked(&self, address: &Address) -> Arc<Node> {
        let mut places = self.map.lock();
        let now = self.map.dialling.clock.elapsed();
        places.asked.insert(address.clone(), now);
        self.map.node_at(&mut places, address)
    }

    /// All servers that have shards, or keys of one that is on its way there, and their addresses.
    pub(super) fn all(&self) -> Vec<(Option<Address>, Arc<Node>)> {
        let places = self.map.lock();
        let owners: HashSet<_> = places.owners.iter().collect();
        let nodes = places.nodes.iter();
        nodes
            .filter(|(address, _)| {
                let is_asked = |address| places.asked.contains_key(address);
                owners.contains(address) || address.as_ref().is_some_and(is_asked)
            })
            .map(|(address, node)| (address.clone(), Arc::clone(node)))
            .collect()
    }

    /// A server said that a shard is at this address for good.
    pub(super) fn moved(&self, shard: Shard, address: Address) {
        let mut places = self.map.lock();
        self.map.node_at(&mut places, &address);
        if let Some(owner) = places.owners.get_mut(usize::from(shard.0))
            && owner.as_ref() != Some(&address)
        {
            *owner = Some(address);
            self.map.changes.send_modify(|changes| *changes += 1);
        }
        self.map.hint.notify_one();
    }

    /// Something went wrong with a server of a cluster: looks who has its slots.
    pub(super) fn hint(&self) {
        self.map.hint.notify_one();
    }

    /// Lets go of all connections, for good.
    pub(super) fn close(&self) {
        if let Some(refresher) = &self.refresher {
            refresher.abort();
        }
        for node in self.map.lock().nodes.values() {
            node.end();
        }
    }

    /// Tells when the owners of shards change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.map.changes.subscribe()
    }

    /// How to reach the server at an address.
    pub(super) fn server(&self, address: Option<&Address>) -> Vec<ConnectionInfo> {
        match address {
            None => self.map.seeds.clone(),
            Some(address) => self.map.server(address).into_iter().collect(),
        }
    }
}

impl Map {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user and password of the first address serve for all servers.
    fn server(&self, address: &Address) -> Option<ConnectionInfo> {
        let seed = self.seeds.first()?.clone();
        Some(seed.set_addr(ConnectionAddr::Tcp(address.host.clone(), address.port)))
    }

    fn node_at(&self, places: &mut Places, address: &Address) -> Arc<Node> {
        let node = places.nodes.entry(Some(address.clone()));
        let begin = || {
            Node::begin(
                self.server(address).into_iter().collect(),
                self.dialling.clone(),
            )
        };
        Arc::clone(node.or_insert_with(|| Arc::new(begin())))
    }

    /// Asks who has which slot, any server that answers.
    async fn refresh(&self) -> Result<(), SharedError> {
        let known: Vec<_> = self.lock().nodes.values().cloned().collect();
        let mut said = SharedError::unavailable("no server of the cluster answers");
        for live in known.iter().filter_map(|node| node.live_now()) {
            match slots(&live).await {
                Ok(owners) => {
                    self.take(&owners);
                    return Ok(());
                }
                Err(error) => said = error,
            }
        }
        for seed in &self.seeds {
            let timeouts = self.dialling.timeouts;
            let asked = async {
                let connection = connect(seed, timeouts.connect, timeouts.response, None).await?;
                let answer = connection
                    .clone()
                    .send_packed_command(&slots_command())
                    .await;
                let place = super::config::place(seed);
                let answer = answer.map_err(|e| super::error::lost(&e, &place))?;
                read_slots(&answer, place.rsplit_once(':').map_or("", |(host, _)| host))
            };
            match asked.await {
                Ok(owners) => {
                    self.take(&owners);
                    return Ok(());
                }
                Err(error) => said = error,
            }
        }
        Err(said)
    }

    fn take(&self, owners: &[Option<Address>]) {
        let mut places = self.lock();
        let mut is_changed = false;
        for (shard, slot) in self.slots.iter().enumerate() {
            let owner = owners.get(usize::from(*slot)).cloned().flatten();
            // A slot without an owner keeps the one it had: that one tells what is the matter.
            if let Some(owner) = owner
                && places.owners[shard].as_ref() != Some(&owner)
            {
                self.node_at(&mut places, &owner);
                places.owners[shard] = Some(owner);
                is_changed = true;
            }
        }
        let now = self.dialling.clock.elapsed();
        places
            .asked
            .retain(|_, asked_at| now.saturating_sub(*asked_at) < ASKED_FOR);
        // One that has no shard and is not in the cluster any more is let go.
        let asked = places.asked.keys().cloned().map(Some);
        let kept: HashSet<_> = owners
            .iter()
            .chain(&places.owners)
            .cloned()
            .chain(asked)
            .collect();
        places.nodes.retain(|address, _| kept.contains(address));
        if is_changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }
}

async fn is_cluster(seeds: &[ConnectionInfo], dialling: &Dialling) -> Result<bool, SharedError> {
    let mut said = SharedError::configuration("the shared cache has no address");
    for seed in seeds {
        let timeouts = dialling.timeouts;
        let asked = async {
            let connection = connect(seed, timeouts.connect, timeouts.response, None).await?;
            about(&connection, &super::config::place(seed)).await
        };
        match asked.await {
            Ok(about) => return Ok(about.is_cluster),
            Err(error) => said = error,
        }
    }
    Err(said)
}

fn slots_command() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

/// The owner of each slot, as this server sees it.
async fn slots(live: &Live) -> Result<Vec<Option<Address>>, SharedError> {
    read_slots(&live.send(&slots_command()).await?, &live.host)
}

fn read_slots(answer: &Value, same_host: &str) -> Result<Vec<Option<Address>>, SharedError> {
    let mut owners = vec![None; usize::from(SLOTS)];
    let Value::Array(ranges) = answer else {
        return Err(odd("CLUSTER SLOTS"));
    };
    for range in ranges {
        let Value::Array(range) = range else {
            return Err(odd("CLUSTER SLOTS"));
        };
        let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = &range[..] else {
            return Err(odd("CLUSTER SLOTS"));
        };
        let [host, Value::Int(port), ..] = &owner[..] else {
            return Err(odd("CLUSTER SLOTS"));
        };
        let host = match host {
            Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
            Value::SimpleString(host) => host.clone(),
            _ => String::new(),
        };
        let port = u16::try_from(*port).map_err(|_| odd("CLUSTER SLOTS"))?;
        let address = Address::read(&format!("{host}:{port}"), same_host);
        let (first, last) = (usize::try_from(*first), usize::try_from(*last));
        let (Ok(first), Ok(last)) = (first, last) else {
            return Err(odd("CLUSTER SLOTS"));
        };
        for slot in owners.iter_mut().take(last.saturating_add(1)).skip(first) {
            slot.clone_from(&address);
        }
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read() {
        let owner = |host: &str, port| {
            Value::Array(vec![
                Value::BulkString(host.into()),
                Value::Int(port),
                Value::BulkString("id".into()),
            ])
        };
        let range =
            |first, last, owner| Value::Array(vec![Value::Int(first), Value::Int(last), owner]);
        let answer = Value::Array(vec![
            range(0, 1, owner("a", 7000)),
            range(16_383, 16_383, owner("", 7001)),
        ]);
        let owners = read_slots(&answer, "here").unwrap();
        let address = |slot: usize| owners[slot].clone().map(|a| (a.host, a.port));
        assert_eq!(address(1), Some(("a".to_owned(), 7000)));
        assert_eq!(address(2), None);
        assert_eq!(address(16_383), Some(("here".to_owned(), 7001)));
        assert!(read_slots(&Value::Nil, "here").is_err());
        let odd = Value::Array(vec![range(-1, 3, owner("a", 7000))]);
        assert!(read_slots(&odd, "here").is_err());
    }
}
