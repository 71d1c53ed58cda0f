//! What is simulated, and what came of it.

use super::history::{History, Violation};

/// A rule turned off, to see that the checker notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// The store applies a flush whatever version it has.
    UnguardedFlush,
    /// The store forgets at once what it deleted.
    ForgottenTombstone,
    /// The journal answers before it has synced.
    AcknowledgedBeforeSync,
    /// A rule of the layer itself.
    Layer(tidegate_core::Mutation),
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Draws everything.
    pub seed: u64,
    /// Clients at work at the same time.
    pub clients: usize,
    /// Operations of each client in each life.
    pub operations: usize,
    /// Lives of the gate. All but the last may end in a crash, at any await of them.
    pub lives: usize,
    /// The disk says that it has synced what it has not: acknowledged writes may be lost in a crash, and
    /// nothing may be invented.
    pub lying_disk: bool,
    /// Numbers that reach the store as additions are counted too.
    pub deltas: bool,
    /// Others write rows of the shared class.
    pub strangers: bool,
    /// A rule turned off.
    pub mutation: Option<Mutation>,
}

impl Scenario {
    /// The usual size, with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            clients: 5,
            operations: 40,
            lives: 3,
            lying_disk: false,
            deltas: true,
            strangers: true,
            mutation: None,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What cannot be.
    pub violations: Vec<Violation>,
    /// What happened, to see that the faults did.
    pub figures: Figures,
    /// Everything that happened.
    pub history: History,
}

/// How often things happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names say it, and only people read them")]
pub struct Figures {
    pub operations: usize,
    pub acknowledged: usize,
    pub indeterminate: usize,
    pub failed: usize,
    /// Of a class of durability `memory`, acknowledged and lost in a crash.
    pub forgotten: usize,
    /// Discarded, or taken along by a discard.
    pub discarded: usize,
    /// Entries parked at the end.
    pub parked: usize,
    /// Journal records that were there for a replay, over all lives.
    pub replayed: usize,
    /// Writes past the gate.
    pub outside: usize,
    /// Lives that ended in a crash, of which so many before the gate was open or while it drained.
    pub crashes: usize,
    pub crashes_at_the_edge: usize,
}

impl Figures {
    /// Both together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.indeterminate += other.indeterminate;
        self.failed += other.failed;
        self.forgotten += other.forgotten;
        self.discarded += other.discarded;
        self.parked += other.parked;
        self.replayed += other.replayed;
        self.outside += other.outside;
        self.crashes += other.crashes;
        self.crashes_at_the_edge += other.crashes_at_the_edge;
        self
    }
}
