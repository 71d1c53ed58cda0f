//! What is put to the test: several nodes over one store, whatever they are.

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

    /// What the caches of the nodes counted since the last start of each: hits and misses, if they count.
    fn hits(&self) -> Option<(u64, u64)> {
        None
    }
}
