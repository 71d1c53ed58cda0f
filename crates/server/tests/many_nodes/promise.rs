//! What classes promise, and how it is held against a history.

use std::fmt;
use std::time::Duration;

use tidegate_testkit::history::{History, Operation, Violation, WriteOrder};

/// Keys that begin with its name, and what is promised of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) keys: usize,
    pub(crate) promise: Promise,
    /// So many clients of each node ask for nothing else, and nobody else asks for it. They read nearly always, and give
    /// up soon: so a node that lost touch with the shared cache is asked for what it still has a copy of, while others
    /// write.
    pub(crate) readers: u32,
    /// More keys of its `[[class]]`.
    pub(crate) settings: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Promise {
    Linearizable,
    /// No read is older than this when it begins, and none of a node goes back or behind the node's own writes.
    ///
    /// There is no allowance: nodes measure by the monotonic clock of the machine, from before they ask for a fence
    /// to after they were asked, as the clients here do, which share the machine. What a node rounds to microseconds
    /// it rounds to its disadvantage.
    Bounded(Duration),
    /// No read is older than this, give or take [`TTL_SLACK`].
    Ttl(Duration),
}

/// The end of a ttl is a moment of the wall clock in whole milliseconds, told from one process to another; a wall clock
/// that is being corrected runs up to one part in two thousand too slow.
const TTL_SLACK: Duration = Duration::from_millis(5);

impl Promise {
    /// How old a read may be.
    pub(crate) fn bound(self) -> Duration {
        match self {
            Self::Linearizable => Duration::ZERO,
            Self::Bounded(bound) => bound,
            Self::Ttl(ttl) => ttl + TTL_SLACK,
        }
    }

    pub(crate) fn check(self, history: &History, order: &WriteOrder) -> Vec<Violation> {
        match self {
            Self::Linearizable => history.check_linearizable(order),
            Self::Bounded(bound) => {
                let mut violations = history.check_bounded(order, bound);
                let node = |operation: &Operation| u64::from(operation.node);
                violations.extend(history.check_sessions(order, node));
                violations
            }
            Self::Ttl(_) => history.check_bounded(order, self.bound()),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Bounded(bound) => write!(f, "bounded({bound:?})"),
            Self::Ttl(ttl) => write!(f, "ttl {ttl:?}"),
        }
    }
}

/// The part of a history that is of keys of a class.
pub(crate) fn of_class(history: &History, class: &Class) -> History {
    let start = format!("{}:", class.name);
    let operations = history.operations().iter();
    operations
        .filter(|operation| operation.key.as_bytes().starts_with(start.as_bytes()))
        .cloned()
        .collect()
}
