//! What is put to the test: several nodes over one store, whatever they are.

use std::collections::BTreeMap;
use std::future::Future;

use tidegate_testkit::history::{Answer, Outcome, Value};

/// What an operation came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    /// Whether a cache answered; nothing if nobody says.
    pub(crate) hit: Option<bool>,
}

impl Told {
    /// Done, and this was read.
    pub(crate) fn done(value: Option<Value>) -> Self {
        let answer = Answer {
            value,
            version: None,
        };
        Self::of(Outcome::Ok(answer))
    }

    pub(crate) fn of(outcome: Outcome) -> Self {
        Self { outcome, hit: None }
    }
}

/// Nodes that can be asked.
pub(crate) trait Subject: Nodes + 'static {
    type Client: Client;

    /// A client of one node. It is made at once and connects when it is used.
    fn client(&self, node: usize) -> Self::Client;
}

/// A client of one node, which does one thing at a time. None of these wait for ever: what is not answered in time has
/// an outcome that nobody knows.
pub(crate) trait Client: Send + 'static {
    fn read(&mut self, key: &str) -> impl Future<Output = Told> + Send;
    fn write(&mut self, key: &str, value: Value) -> impl Future<Output = Told> + Send;
    fn delete(&mut self, key: &str) -> impl Future<Output = Told> + Send;

    /// Adds one to a number; what it came to. Not asked of those that cannot.
    fn add(&mut self, _key: &str) -> impl Future<Output = Result<i64, Outcome>> + Send {
        async { Err(Outcome::Failed) }
    }
}

/// What can be done to nodes from outside.
pub(crate) trait Nodes: Send + Sync {
    fn count(&self) -> usize;

    /// Ends it in the middle of whatever it does.
    fn kill(&self, node: usize);

    /// Starts it again and waits until it can be asked.
    fn start(&self, node: usize);

    /// Holds it where it stands.
    fn pause(&self, node: usize);

    /// Lets it go on as if nothing had been.
    fn resume(&self, node: usize);

    /// What the caches of the nodes have counted so far, if they count.
    fn hits(&self) -> Option<Hits> {
        None
    }

    /// What each node wrote to its error stream.
    fn said(&self) -> Vec<String> {
        vec![String::new(); self.count()]
    }
}

/// Reads by who answered them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Hits {
    pub(crate) near: u64,
    pub(crate) shared: u64,
    /// Those that no cache answered, by class.
    pub(crate) misses: BTreeMap<String, u64>,
}

impl Hits {
    pub(crate) fn misses(&self) -> u64 {
        self.misses.values().sum()
    }

    /// Those of `self` and those of the other.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.near += other.near;
        self.shared += other.shared;
        for (class, misses) in other.misses {
            *self.misses.entry(class).or_default() += misses;
        }
        self
    }

    /// Those of `self` that came after the other.
    pub(crate) fn since(mut self, other: &Self) -> Self {
        self.near = self.near.saturating_sub(other.near);
        self.shared = self.shared.saturating_sub(other.shared);
        for (class, misses) in &mut self.misses {
            let before = other.misses.get(class).copied().unwrap_or(0);
            *misses = misses.saturating_sub(before);
        }
        self
    }
}
