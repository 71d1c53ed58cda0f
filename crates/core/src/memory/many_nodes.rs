//! The reference of what a store offers to several nodes. Transactions are of an instant, unless a test holds one
//! open ([`MemoryStore::begin`]); the clock stands still unless it is given one, or moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::store::{Database, MemoryStore, ready};
use crate::key::Key;
use crate::port::{
    Batch, BoxFuture, ClassSettings, Clock, Horizon, ManyNodes, NODE_LIVE, NODE_REMEMBERED, NodeId,
    Outcome, Outside, OutsideChange, OutsideCursor, StoreError, StoreTime, TableId, disagreement,
};
use crate::version::Version;

/// How long the changes of others are kept.
const OUTSIDE_KEPT: Duration = Duration::from_secs(60 * 60);

/// What the store keeps for its nodes.
#[derive(Default)]
#[cfg_attr(feature = "mutation", derive(Clone))]
pub(super) struct Shared {
    /// Where the time comes from, if not from the tests alone.
    clock: Option<Arc<dyn Clock>>,
    /// How far the clock was moved by hand.
    moved: Duration,
    /// The number of the last transaction.
    last: u64,
    /// Transactions that are not finished.
    begun: BTreeSet<u64>,
    nodes: BTreeMap<NodeId, (StoreTime, Vec<ClassSettings>)>,
    /// Changes of others: by transaction and place, with the index of the table.
    outside: BTreeMap<OutsideCursor, OutsideChange>,
    /// Changes up to here were removed.
    removed: Option<OutsideCursor>,
}

impl Shared {
    fn now(&self) -> StoreTime {
        let millis = self
            .clock
            .as_ref()
            .map_or(0, |clock| clock.now().as_millis());
        StoreTime::default()
            .after(Duration::from_millis(millis))
            .after(self.moved)
    }

    /// The number of a new transaction.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether a transaction that has its number may commit.
    pub(super) fn in_time(&self, commit_by: Option<StoreTime>) -> Result<(), StoreError> {
        match commit_by {
            Some(limit) if self.now() > limit => Err(StoreError::late(
                "the store's clock is past the moment by which the batch was to commit",
            )),
            _ => Ok(()),
        }
    }

    fn horizon(&self) -> Horizon {
        let next = self.last + 1;
        Horizon {
            now: self.now(),
            oldest: self.begun.first().copied().unwrap_or(next),
            next,
        }
    }

    /// Notes what others changed, in a transaction of its own.
    pub(super) fn changed(&mut self, table: usize, key: Option<Key>, version: Version) {
        let transaction = self.number();
        let at = self.now();
        let place = OutsideCursor {
            transaction,
            place: 1,
            history: 0,
        };
        let table = TableId(u16::try_from(table).unwrap_or(u16::MAX));
        let change = OutsideChange {
            table,
            key,
            version,
            at,
        };
        self.outside.insert(place, change);
    }

    /// Removes what every node had time enough to read.
    pub(super) fn sweep(&mut self) {
        let now = self.now();
        while let Some(first) = self.outside.first_entry() {
            if now.since(first.get().at) <= OUTSIDE_KEPT {
                return;
            }
            self.removed = Some(*first.key());
            first.remove();
        }
    }

    fn agree(&mut self, node: NodeId, settings: &[ClassSettings]) -> Result<(), StoreError> {
        let now = self.now();
        self.nodes
            .retain(|_, (seen, _)| now.since(*seen) <= NODE_REMEMBERED);
        let live = self.nodes.iter();
        let live =
            live.filter(|(other, (seen, _))| **other != node && now.since(*seen) <= NODE_LIVE);
        let differs = live
            .filter_map(|(_, (_, there))| disagreement(settings, there))
            .next();
        if let Some(what) = differs {
            self.nodes.remove(&node);
            return Err(StoreError::configuration(what));
        }
        self.nodes.insert(node, (now, settings.to_vec()));
        Ok(())
    }

    fn read(&self, after: Option<OutsideCursor>, limit: usize) -> Outside {
        let horizon = self.horizon();
        // Without a cursor from the very first one, which has a number.
        let from = after.unwrap_or_default();
        let unread = self.outside.range(from..).filter(|(at, _)| **at > from);
        let oldest = unread.clone().map(|(_, change)| change.at).min();
        let mut finished = unread.take_while(|(at, _)| at.transaction < horizon.oldest);
        let changes: Vec<_> = finished.by_ref().take(limit).collect();
        let more = finished.next().is_some();
        let next = changes.last().map_or(from, |(last, _)| **last);
        Outside {
            changes: changes
                .into_iter()
                .map(|(_, change)| change.clone())
                .collect(),
            next,
            more,
            missed: self.removed.is_some_and(|removed| removed > from),
            lag: oldest.map_or(Duration::ZERO, |at| horizon.now.since(at)),
        }
    }
}

/// A transaction that holds its number and was found in time, and is not finished: what a node is in that was stopped
/// right before its commit. Dropped, it is undone. It holds no rows, so others may overtake it.
pub struct Begun {
    store: MemoryStore,
    batch: Batch,
    number: u64,
}

impl Begun {
    /// Commits, however late it is by now.
    ///
    /// # Errors
    /// As [`Store::apply`](crate::port::Store::apply), but for the limit of time.
    pub fn commit(self) -> Result<Vec<Outcome>, StoreError> {
        let mut database = self.store.lock();
        database.shared.begun.remove(&self.number);
        database.commit(&self.batch)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.store.lock().shared.begun.remove(&self.number);
    }
}

impl MemoryStore {
    /// An empty store that has the time from this clock. Without one its time begins at the epoch and stands still.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let store = Self::new();
        store.lock().shared.clock = Some(clock);
        store
    }

    /// Moves the store's clock on. For tests.
    pub fn advance(&self, by: Duration) {
        let mut database = self.lock();
        database.shared.moved = database.shared.moved.saturating_add(by);
    }

    /// Begins a batch and does not finish it: it has its number, and it is decided that it commits. For tests of
    /// those who stop at that moment.
    ///
    /// # Errors
    /// [`StoreError::Late`] past the batch's limit of time, and [`StoreError::Unavailable`] if the store is closed.
    pub fn begin(&self, batch: Batch) -> Result<Begun, StoreError> {
        let mut database = self.open()?;
        let number = database.shared.number();
        database.shared.in_time(batch.commit_by)?;
        database.shared.begun.insert(number);
        drop(database);
        Ok(Begun {
            store: self.clone(),
            batch,
            number,
        })
    }

    /// What a stranger does who empties a table by one statement. For tests; a table that is not open is left alone.
    pub fn outside_truncate(&self, table: &str) {
        let mut database = self.lock();
        let Some(id) = database.tables.iter().position(|t| t.spec.name == table) else {
            return;
        };
        let Database {
            tables,
            shared,
            told,
            ..
        } = &mut *database;
        let table = &mut tables[id];
        table.forget_rows(*told);
        if table.spec.outbox {
            shared.changed(id, None, Version::NONE);
        }
    }
}

impl ManyNodes for MemoryStore {
    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, StoreError>> {
        ready(self.open().map(|database| database.shared.horizon()))
    }

    fn agree<'a>(
        &'a self,
        node: NodeId,
        settings: &'a [ClassSettings],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        ready(
            self.open()
                .and_then(|mut database| database.shared.agree(node, settings)),
        )
    }

    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.open().map(|mut database| {
            database.shared.nodes.remove(&node);
        }))
    }

    fn outside_changes(
        &self,
        after: Option<OutsideCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Outside, StoreError>> {
        ready(
            self.open()
                .map(|database| database.shared.read(after, limit)),
        )
    }
}
