//! How fresh the reads of a class are that several nodes share.

use std::time::Duration;

/// What a read promises where several nodes share a cache ([`GateBuilder::shared`](crate::GateBuilder::shared)).
/// Without a shared cache there is one node, whose reads are linearizable, and the level says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Level {
    /// A read never returns what an acknowledged write of any node has replaced. Every read asks the shared cache.
    #[default]
    Linearizable,
    /// A read is at most this old, sees the writes of its own node, and on one node never goes back. It may be
    /// answered by a copy in this process.
    Bounded(Duration),
    /// Reads of a [`Session`](crate::Session) see its writes, and never go back, on whatever node it is continued.
    /// Other reads may be as old as the class's `ttl`.
    Session,
    /// A read may be as old as the class's `ttl`, which has to be given.
    Eventual,
}

impl Level {
    /// Its name in configuration and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Bounded(_) => "bounded",
            Self::Session => "session",
            Self::Eventual => "eventual",
        }
    }

    /// Whether a copy in this process may answer.
    pub(crate) fn allows_near(self) -> bool {
        self != Self::Linearizable
    }
}
