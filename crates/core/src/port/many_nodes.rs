//! What a store offers to several nodes that share it: its clock, the bounds of its unfinished transactions, one
//! agreement on the settings of classes, and the changes that others made.
//!
//! A node that dies in the middle of a write leaves behind a mark in the shared cache, and a transaction of which
//! nobody knows whether it will still commit. No timeout tells that. [`Proof`] does, out of a deadline that the
//! transaction carries ([`Batch::commit_by`](super::Batch)) and of what the store says of its transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{BoxFuture, StoreError, TableId};
use crate::key::Key;
use crate::version::Version;

/// A moment on the store's own clock, in microseconds since the Unix epoch. Not to be compared with a
/// [`Timestamp`](super::Timestamp), which is the layer's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct StoreTime(i64);

impl StoreTime {
    /// The moment so many microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The moment `by` later; stays at the far end of time rather than wrap.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// How much later this is than `earlier`; nothing if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let micros = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

/// Names a node among those that share a store: drawn at random at its start, never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u64);

/// What of a class must be the same on all nodes: each setting by its name, as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassSettings {
    /// The class.
    pub class: Arc<str>,
    /// The settings by name. They may be shown to people, so they hold no secrets.
    pub settings: BTreeMap<String, String>,
}

/// In what the settings of this node and of another differ, in words that name the class and the setting; nothing if
/// they agree. The order of classes is of no matter.
#[must_use]
pub fn disagreement(here: &[ClassSettings], there: &[ClassSettings]) -> Option<String> {
    let find = |all: &[ClassSettings], class: &str| all.iter().position(|c| *c.class == *class);
    for ours in here {
        let class = &ours.class;
        let Some(theirs) = find(there, class).map(|at| &there[at]) else {
            return Some(format!(
                "class '{class}' is on this node and not on another live node"
            ));
        };
        let names = ours.settings.keys().chain(theirs.settings.keys());
        for name in names {
            let (here, there) = (ours.settings.get(name), theirs.settings.get(name));
            if here != there {
                let shown = |setting: Option<&String>| match setting {
                    Some(setting) => format!("`{}`", setting.escape_debug()),
                    None => "nothing".to_owned(),
                };
                return Some(format!(
                    "class '{class}': the setting `{name}` is {} on this node and {} on another live node",
                    shown(here),
                    shown(there),
                ));
            }
        }
    }
    let missing = there
        .iter()
        .find(|theirs| find(here, &theirs.class).is_none());
    missing.map(|theirs| {
        format!(
            "class '{}' is on another live node and not on this node",
            theirs.class
        )
    })
}

/// How long a node counts as live after it was last heard of ([`ManyNodes::agree`]), by the store's clock.
pub const NODE_LIVE: Duration = Duration::from_secs(30);

/// How long a dead node is remembered.
pub const NODE_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The store's clock and the bounds of its unfinished transactions. `now` was read before the bounds were: a
/// transaction that had its number when the clock showed less than `now` has one below `next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Horizon {
    /// What the store's clock showed.
    pub now: StoreTime,
    /// Every transaction with a number below is finished, and if it committed it is seen by whatever is read from
    /// now on.
    pub oldest: u64,
    /// No transaction had this number yet, or a greater one. At least `oldest`.
    pub next: u64,
}

/// The proof that no batch with this deadline is still under way: one that committed is seen by every load from now
/// on, any other will never commit.
///
/// A batch that commits had a number when it found the store's clock not past its deadline
/// ([`Batch::commit_by`](super::Batch)). So once the clock is past the deadline, all that may still commit have
/// numbers below the next one of that moment; and once all numbers below that one are finished, nothing is left. This
/// holds as long as the store's clock does not step backwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    deadline: StoreTime,
    /// The first number that none of the batches has, once it is known.
    bound: Option<u64>,
}

impl Proof {
    /// Of batches with this deadline or an earlier one. Nothing is proven yet.
    #[must_use]
    pub fn of(deadline: StoreTime) -> Self {
        Self {
            deadline,
            bound: None,
        }
    }

    /// Takes what the store says now, and tells whether it is proven. Horizons are those of one store; their order
    /// is of no matter, an old one only proves less.
    pub fn learn(&mut self, horizon: &Horizon) -> bool {
        if horizon.now > self.deadline {
            // The smallest proves soonest, and each of them is right.
            let bound = self
                .bound
                .map_or(horizon.next, |bound| bound.min(horizon.next));
            self.bound = Some(bound);
        }
        self.bound.is_some_and(|bound| horizon.oldest >= bound)
    }
}

/// How far the changes of others were read; by default nothing was. To be taken from [`Outside::next`] and handed
/// back as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct OutsideCursor {
    /// The number of the transaction.
    pub transaction: u64,
    /// The place within it; nought is before the first.
    pub place: u64,
    /// Names the history of the store that the transaction is of: numbers of a store that was restored, or that lost
    /// what it had committed when another server took over, are given out again.
    pub history: u64,
}

/// A change that others made to a table behind the layer's back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsideChange {
    /// The table.
    pub table: TableId,
    /// The key; with nothing all keys of the table.
    pub key: Option<Key>,
    /// The version of the row now, or the one under which its deletion is remembered; greater than every one that
    /// the key had before. [`Version::NONE`] where all keys are meant.
    pub version: Version,
    /// When it was made, by the store's clock.
    pub at: StoreTime,
}

/// The changes of others after a cursor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outside {
    /// In an order in which their transactions may be done one after the other, and within one as they were made. Of
    /// tables that are open here.
    pub changes: Vec<OutsideChange>,
    /// Where to read on.
    pub next: OutsideCursor,
    /// More is there already.
    pub more: bool,
    /// Changes after the cursor were removed before they were read here (the store keeps them for an hour at least),
    /// or the history of the store is another one: everything may have changed.
    pub missed: bool,
    /// How long ago, by the store's clock, the oldest change was made that had not been read before this call; zero
    /// if there was none. A change that cannot be told yet, because an older transaction is not finished, counts.
    pub lag: Duration,
}

/// What a store offers to several nodes that share it.
///
/// Every call is safe to drop.
pub trait ManyNodes: Send + Sync {
    /// The store's clock and the bounds of its unfinished transactions, of one moment. It may take a number itself,
    /// so it is for now and then and not for every call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be told now, also by a copy of the store that takes no writes.
    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, StoreError>>;

    /// Registers this node with its settings of its classes, or says again that it is live: to be repeated every few
    /// seconds, because a node that was not heard of for [`NODE_LIVE`] does not count any more. Of two nodes that
    /// begin at once with different settings at most one is taken.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] naming the class and the setting if another live node has others. The node is
    /// not registered then, or not any more.
    fn agree<'a>(
        &'a self,
        node: NodeId,
        settings: &'a [ClassSettings],
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The node ends: it does not count any more. One that is not registered is no error.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be told now.
    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What others changed in the open tables that ask for it ([`TableSpec::outbox`](super::TableSpec)) after a
    /// cursor, at most `limit` changes; without a cursor all that is kept. Nothing that was committed is left out,
    /// also if it began before what was read already.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be read now.
    fn outside_changes(
        &self,
        after: Option<OutsideCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Outside, StoreError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn horizon(now: i64, oldest: u64, next: u64) -> Horizon {
        Horizon {
            now: StoreTime::from_micros(now),
            oldest,
            next,
        }
    }

    #[test]
    fn a_proof_waits_for_all_that_could_have_passed_the_deadline() {
        let mut proof = Proof::of(StoreTime::from_micros(100));
        // Not past the deadline: whoever begins now may still commit.
        assert!(!proof.learn(&horizon(99, 50, 50)));
        assert!(!proof.learn(&horizon(100, 50, 50)));
        // Past it, with 5 to 19 under way: these may be of the deadline.
        assert!(!proof.learn(&horizon(101, 5, 20)));
        // One of them is left. Later ones do not move the bound.
        assert!(!proof.learn(&horizon(500, 19, 900)));
        assert!(proof.learn(&horizon(501, 20, 901)));
        assert!(proof.learn(&horizon(502, 900, 901)));
    }

    #[test]
    fn where_nothing_is_under_way_one_look_is_enough() {
        let mut proof = Proof::of(StoreTime::from_micros(100));
        assert!(proof.learn(&horizon(101, 7, 7)));
    }

    #[test]
    fn horizons_in_the_wrong_order_prove_less_and_never_more() {
        let mut proof = Proof::of(StoreTime::from_micros(100));
        assert!(!proof.learn(&horizon(300, 10, 30)));
        // Older than the one before: its bound is as good.
        assert!(!proof.learn(&horizon(200, 5, 20)));
        assert!(proof.learn(&horizon(400, 20, 40)));
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        let end = StoreTime::from_micros(i64::MAX);
        assert_eq!(end.after(Duration::from_secs(1)), end);
        let start = StoreTime::from_micros(i64::MIN);
        assert_eq!(end.since(start), Duration::from_micros(u64::MAX));
        assert_eq!(start.since(end), Duration::ZERO);
    }

    #[test]
    fn a_disagreement_names_the_class_and_the_setting() {
        let class = |name: &str, settings: &[(&str, &str)]| ClassSettings {
            class: name.into(),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let one = [class("a", &[("x", "1")]), class("b", &[])];
        let other_order = [class("b", &[]), class("a", &[("x", "1")])];
        assert_eq!(disagreement(&one, &other_order), None);
        let names = |there: &[ClassSettings], wanted: [&str; 2]| {
            for (here, there) in [(&one[..], there), (there, &one[..])] {
                let what = disagreement(here, there).unwrap();
                assert!(wanted.iter().all(|name| what.contains(name)), "{what}");
            }
        };
        names(
            &[class("a", &[("x", "2")]), class("b", &[])],
            ["'a'", "`x`"],
        );
        names(
            &[class("a", &[("x", "1")]), class("b", &[("y", "")])],
            ["'b'", "`y`"],
        );
        names(&[class("a", &[]), class("b", &[])], ["'a'", "`x`"]);
        names(&[class("a", &[("x", "1")])], ["'b'", "not on"]);
    }
}
