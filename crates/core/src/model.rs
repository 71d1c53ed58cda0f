//! One key under write-back, one step at a time, for a test that tries every order of the steps.
//!
//! The steps are those of the layer itself: the same dirty entries, the same writes of a flush, the reference
//! store with its guard. What the layer does between two awaits is one step here.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;

use crate::entry::Change;
use crate::flush::write_of;
use crate::hash::Hasher;
use crate::key::Key;
use crate::lane::{Claim, Dirty, DirtyEntry, DirtyState, Lineage};
use crate::memory::MemoryStore;
use crate::mutation::{Mutation, Mutations};
use crate::port::{Batch, Guard, Store, TableId, TableSpec, Timestamp};
use crate::version::Version;

const TABLE: &str = "t";

/// A key and all that is known of it: its copy, its dirty entry, its row.
pub struct OneKey {
    key: Key,
    copy: Option<Content>,
    dirty: Dirty,
    store: MemoryStore,
    table: TableId,
    issued: u64,
    rules: Mutations,
}

/// A state of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Content {
    /// Who wrote it.
    pub version: Version,
    /// Whether the key is deleted.
    pub deleted: bool,
}

/// A dirty entry on its way to the store.
#[derive(Clone)]
pub struct Claimed(Claim);

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.version)
    }
}

impl Clone for OneKey {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            copy: self.copy,
            dirty: self.dirty.clone(),
            store: self.store.fork(),
            table: self.table,
            issued: self.issued,
            rules: self.rules,
        }
    }
}

/// The memory store answers at once.
fn now<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("the memory store never waits")
}

impl OneKey {
    /// A key that was written once, is in the store and clean, with these rules switched off.
    #[must_use]
    pub fn new(off: &[Mutation]) -> Self {
        let rules = off
            .iter()
            .fold(Mutations::default(), |rules, rule| rules.with(*rule));
        let store = MemoryStore::new();
        let table = now(store.open_table(&TableSpec::named(TABLE)))
            .expect("a new store has room for a table");
        let mut new = Self {
            key: Key::from("k"),
            copy: None,
            dirty: Dirty::new(&Hasher::with_seed(1), rules),
            store,
            table,
            issued: 0,
            rules,
        };
        let first = new.issue(false);
        new.cache(first);
        new.make_dirty(first);
        let claim = new.claim().expect("it was just made dirty");
        new.apply(&claim, true, false);
        new.settle(&claim);
        new
    }

    /// A write, or a delete, gets its version.
    pub fn issue(&mut self, deleted: bool) -> Content {
        self.issued += 1;
        let version = Version::from_raw(self.issued);
        Content { version, deleted }
    }

    /// The cache takes a write.
    pub fn cache(&mut self, content: Content) {
        self.copy = Some(content);
    }

    /// A write becomes dirty.
    pub fn make_dirty(&mut self, content: Content) {
        let entry = DirtyEntry {
            class: 0,
            change: match content.deleted {
                true => Change::Delete,
                // The value tells who wrote it, also where the store numbers rows by itself.
                false => Change::Put {
                    value: Bytes::copy_from_slice(&content.version.raw().to_be_bytes()),
                    expires_at: None,
                },
            },
            version: content.version,
            lineage: Lineage::default(),
            lsn: None,
            since: Duration::ZERO,
            turn: 0,
            state: DirtyState::Waiting,
        };
        self.dirty.insert(self.key.clone(), entry);
    }

    /// A flusher takes what is dirty.
    pub fn claim(&mut self) -> Option<Claimed> {
        let claim = self.dirty.claim(0, 1, u64::MAX).pop()?;
        if self.rules.breaks(Mutation::CleanOnceClaimed) {
            self.dirty.settle(&claim);
        }
        Some(Claimed(claim))
    }

    /// What was claimed reaches the store; without its guard, or with a store that forgets deletions, if so
    /// asked.
    pub fn apply(&mut self, claim: &Claimed, guarded: bool, forgetful: bool) {
        let mut write = write_of(&claim.0, self.table);
        if !guarded {
            write.guard = Guard::Always;
        }
        let at = Timestamp::from_millis(1);
        let batch = Batch::new(vec![write], at);
        let applied = now(self.store.apply(&batch));
        debug_assert!(applied.is_ok(), "{applied:?}");
        if forgetful {
            let later = at.after(Duration::from_millis(1));
            let swept = now(self.store.sweep(self.table, later, Duration::ZERO, 1));
            debug_assert!(swept.is_ok(), "{swept:?}");
        }
    }

    /// The flusher learns that the store has it.
    pub fn settle(&mut self, claim: &Claimed) {
        self.dirty.settle(&claim.0);
    }

    /// The flusher does not learn it, for whatever reason.
    pub fn unclaim(&mut self, claim: &Claimed) {
        self.dirty.unclaim(&claim.0);
    }

    /// An eviction. False if there is nothing to be evicted.
    pub fn evict(&mut self) -> bool {
        let may_forget = self.rules.breaks(Mutation::EvictableDirtyEntry);
        let forgotten = may_forget && self.dirty.remove(self.key.as_bytes()).is_some();
        self.copy.take().is_some() || forgotten
    }

    /// What is dirty, if anything is.
    #[must_use]
    pub fn dirty(&self) -> Option<Content> {
        let entry = self.dirty.get(self.key.as_bytes())?;
        Some(Content {
            version: entry.version,
            deleted: entry.change == Change::Delete,
        })
    }

    /// Who wrote the row, if there is one.
    #[must_use]
    pub fn row(&self) -> Option<Version> {
        let row = self.store.row(TABLE, &self.key)?;
        let version = row.value.first_chunk()?;
        Some(Version::from_raw(u64::from_be_bytes(*version)))
    }

    /// What a reader is answered: dirty entry, copy, row, in this order. Nothing: there is no row.
    #[must_use]
    pub fn read(&self) -> Option<Content> {
        let row = || {
            Some(Content {
                version: self.row()?,
                deleted: false,
            })
        };
        self.dirty().or(self.copy).or_else(row)
    }

    /// All of it that decides what may happen next, so that equal states are explored once.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let dirty = self.dirty.get(self.key.as_bytes()).map(|entry| DirtyEntry {
            turn: 0,
            ..entry.clone()
        });
        let known = self.store.known(TABLE, &self.key);
        let (copy, row) = (self.copy, self.row());
        format!("{} {copy:?} {dirty:?} {row:?} {known}", self.issued)
    }
}
