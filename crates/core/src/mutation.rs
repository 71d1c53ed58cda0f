//! Rules of write-back and of the shared cache that a test can switch off, in one gate or in one machine, to see that
//! its harness notices.
//!
//! Only with the cargo feature `mutation`, which nothing but tests asks for; without it nothing can be
//! switched off, and asking costs nothing. What a faulty port can act out (a flush without its guard, a
//! tombstone that is forgotten, an acknowledgement before the sync) is not here: that is a fault of a port.

/// A rule that can be switched off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(not(feature = "mutation"), expect(unreachable_pub))]
pub enum Mutation {
    /// What was flushed becomes clean even if it was written again meanwhile.
    UndirtyWithoutComparing,
    /// What is claimed is clean at once, not when the store has it.
    CleanOnceClaimed,
    /// An eviction drops dirty entries too.
    EvictableDirtyEntry,
    /// What the store refuses is dropped, not parked.
    DropOnPermanentError,
    /// The shared cache takes what a reader loaded also without a lease.
    NoLease,
    /// What is left of a quarantine after a mark was swept or lost may become clean.
    NoTaint,
    /// What the shared cache held under another generation is served.
    NoGeneration,
    /// Leases are given also while a shard is closed.
    NoGrace,
    /// A quarantine that is opened while its shard is closed may become clean.
    NoGraceTaint,
    /// What others are known to have written is forgotten while a key is in quarantine or dirty.
    NoFloor,
    /// What was written in an earlier generation of its shard, or is flushed while that is closed, becomes clean.
    NoGenerationFlush,
    /// A reader shares also a load that began before it did.
    RelaxedFlight,
    /// A mark is taken away although nobody knows whether its write was made.
    ReleaseUnknown,
    /// A copy is kept also of an answer that the news of a change has overtaken.
    KeepOvertaken,
    /// A write leaves the copy of its own node as it is until it is told of the change.
    ForgetLate,
}

/// The rules that are switched off in one gate, or in one shard of a shared cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Mutations {
    #[cfg(feature = "mutation")]
    off: u16,
}

impl Mutations {
    /// Whether this rule is switched off.
    #[cfg(feature = "mutation")]
    pub(crate) fn breaks(self, rule: Mutation) -> bool {
        self.off & (1 << rule as u8) != 0
    }

    /// Whether this rule is switched off: it cannot be.
    #[cfg(not(feature = "mutation"))]
    #[expect(clippy::unused_self, reason = "it asks as the other does")]
    pub(crate) const fn breaks(self, _rule: Mutation) -> bool {
        false
    }

    /// Switches this rule off too.
    #[cfg(feature = "mutation")]
    pub(crate) fn with(self, rule: Mutation) -> Self {
        Self {
            off: self.off | 1 << rule as u8,
        }
    }
}
