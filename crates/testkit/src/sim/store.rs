//! A store that is slow, away, refuses poison, loses the answers to commits, and commits some of those later.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_core::memory::MemoryStore;
use tidegate_core::port::{
    Batch, BoxFuture, Capabilities, ClassSettings, Guard, Horizon, ManyNodes, NodeId, Outcome,
    Outside, OutsideCursor, Resolution, RowKey, Store, StoreError, Swept, TableId, TableSpec,
    Ticket, Timestamp,
};
use tidegate_core::{Entry, Key, Version};
use tokio::sync::Notify;

use super::Random;
use super::applied::Applied;

/// A value that begins so is refused for good.
const POISON: u8 = b'!';

/// How a store misbehaves.
#[derive(Clone, Copy, Debug)]
pub struct StoreFaults {
    /// A call takes up to this long.
    pub delay_max: Duration,
    /// The share of calls that stall for a hundred times as long.
    pub stall: f64,
    /// The share of calls that fail before they do anything.
    pub unavailable: f64,
    /// The share of commits whose answer is lost: done, not done, or done later.
    pub unknown: f64,
    /// Of the lost answers to flushes, the share that the store has not even begun: it does so later, when
    /// others may have written the rows. (A write that the store numbers is never late: its row is locked.)
    pub late: f64,
    /// The share of batches that are refused, nobody knows why, and may be taken when they are tried again.
    pub refused: f64,
    /// The share of calls that panic: a bug of an adapter.
    pub panics: f64,
    /// Loads that touch this table are refused.
    pub broken_table: Option<TableId>,
    /// Treats a flush as an unguarded write: a broken promise, for checking that the checker sees it.
    pub ignores_guards: bool,
    /// Forgets the version of a deleted row at once: a broken promise, likewise.
    pub forgets_deletions: bool,
}

impl StoreFaults {
    /// A store that does nothing wrong, and takes its time.
    #[must_use]
    pub fn none(delay_max: Duration) -> Self {
        Self {
            delay_max,
            stall: 0.0,
            unavailable: 0.0,
            unknown: 0.0,
            late: 0.0,
            refused: 0.0,
            panics: 0.0,
            broken_table: None,
            ignores_guards: false,
            forgets_deletions: false,
        }
    }
}

/// A store that is slow, away, refuses poison, loses the answers to commits, and commits some of those later.
/// Clones are the same store.
#[derive(Clone)]
pub struct FaultyStore {
    shared: Arc<Shared>,
}

struct Shared {
    inner: MemoryStore,
    random: Random,
    state: Mutex<State>,
    /// A transaction that held row locks ended.
    unlocked: Notify,
}

struct State {
    faults: StoreFaults,
    /// Rows of transactions whose commit is still under way.
    locked: HashSet<RowKey>,
    pending: HashMap<u64, Batch>,
    resolved: HashMap<u64, Resolution>,
    tickets: u64,
    calls: StoreCalls,
    applied: Applied,
}

/// How often a store was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreCalls {
    /// Calls of `load`.
    pub loads: u64,
    /// Keys they asked for.
    pub loaded_keys: u64,
    /// Calls of `apply`.
    pub applies: u64,
    /// Writes they carried.
    pub applied_writes: u64,
}

impl FaultyStore {
    /// A store over `inner`.
    #[must_use]
    pub fn new(inner: MemoryStore, faults: StoreFaults, random: Random) -> Self {
        let state = State {
            faults,
            locked: HashSet::new(),
            pending: HashMap::new(),
            resolved: HashMap::new(),
            tickets: 0,
            calls: StoreCalls::default(),
            applied: Applied::default(),
        };
        let shared = Shared {
            inner,
            random,
            state: Mutex::new(state),
            unlocked: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Changes how it misbehaves.
    pub fn set_faults(&self, faults: StoreFaults) {
        self.state().faults = faults;
    }

    /// How often it was called so far.
    #[must_use]
    pub fn calls(&self) -> StoreCalls {
        self.state().calls
    }

    /// The newest version of a key of this table, no newer than `most`, that was written through this store.
    #[must_use]
    pub fn newest(&self, table: &str, key: &Key, most: Version) -> Version {
        self.state().applied.newest(table, key, most)
    }

    /// Versions that were applied to a row out of their order (I9), in words.
    #[must_use]
    pub fn disorder(&self) -> Vec<String> {
        self.state().applied.disorder.clone()
    }

    /// A stranger changes a row in plain SQL, once no transaction holds it.
    pub async fn outside(&self, table: &str, key: &Key, value: &[u8]) {
        let Some(id) = self.state().applied.tables.get(table).copied() else {
            return;
        };
        let row = [(id, key.clone())];
        self.lock(&row).await;
        self.shared.inner.outside(table, key, Some(value));
        let version = self.shared.inner.row(table, key).map(|row| row.version);
        let mut state = self.state();
        state.applied.outside(&row[0], version.unwrap_or_default());
        state.locked.remove(&row[0]);
        drop(state);
        self.shared.unlocked.notify_waiters();
    }

    /// The client died: each commit under way is done or not, as it happens.
    pub async fn crash(&self) {
        let mut tickets: Vec<u64> = self.state().pending.keys().copied().collect();
        tickets.sort_unstable();
        for ticket in tickets {
            self.finish(ticket, self.shared.random.chance(0.5)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn finish(&self, ticket: u64, commit: bool) {
        let Some(batch) = self.state().pending.remove(&ticket) else {
            return;
        };
        let committed = commit && self.write(&batch).await.is_ok();
        let mut state = self.state();
        for write in &batch.writes {
            state.locked.remove(&(write.table, write.key.clone()));
        }
        let resolution = if committed {
            Resolution::Committed
        } else {
            Resolution::Aborted
        };
        state.resolved.insert(ticket, resolution);
        drop(state);
        self.shared.unlocked.notify_waiters();
    }

    #[expect(clippy::disallowed_methods, reason = "time is paused here")]
    async fn take_time(&self) {
        let faults = self.state().faults;
        let mut micros = u64::try_from(faults.delay_max.as_micros()).unwrap_or(u64::MAX);
        if self.shared.random.chance(faults.stall) {
            micros = micros.saturating_mul(100);
        }
        tokio::time::sleep(Duration::from_micros(self.shared.random.below(micros + 1))).await;
    }

    async fn take_time_or_fail(&self) -> Result<(), StoreError> {
        self.take_time().await;
        let faults = self.state().faults;
        if self.shared.random.chance(faults.unavailable) {
            return Err(StoreError::unavailable("simulated"));
        }
        if self.shared.random.chance(faults.panics) {
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new("simulated"));
        }
        Ok(())
    }

    /// Waits for the row locks of `batch` and takes them.
    async fn lock_rows(&self, batch: &Batch) {
        let writes = batch.writes.iter();
        let rows: Vec<RowKey> = writes
            .map(|write| (write.table, write.key.clone()))
            .collect();
        self.lock(&rows).await;
    }

    async fn lock(&self, rows: &[RowKey]) {
        loop {
            let unlocked = self.shared.unlocked.notified();
            tokio::pin!(unlocked);
            unlocked.as_mut().enable();
            {
                let mut state = self.state();
                if rows.iter().all(|row| !state.locked.contains(row)) {
                    state.locked.extend(rows.iter().cloned());
                    return;
                }
            }
            unlocked.await;
        }
    }

    async fn apply_faulty(&self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        self.take_time_or_fail().await?;
        let poison = |value: &bytes::Bytes| value.first() == Some(&POISON);
        if batch
            .writes
            .iter()
            .any(|write| write.value().is_some_and(poison))
        {
            return Err(StoreError::refused(Some("23514"), "simulated constraint"));
        }
        let faults = self.state().faults;
        if self.shared.random.chance(faults.refused) {
            return Err(StoreError::refused(Some("42501"), "simulated privilege"));
        }
        let is_flush = |guard| matches!(guard, Guard::IfNewer(_) | Guard::Flush { .. });
        let unknown = self.shared.random.chance(faults.unknown);
        if unknown
            && batch.writes.iter().all(|write| is_flush(write.guard))
            && self.shared.random.chance(faults.late)
        {
            return Err(self.begin_later(batch.clone()));
        }
        self.lock_rows(batch).await;
        let ticket = self.begin(batch);
        if !unknown {
            // From here to the end of the transaction nothing is awaited that could be interleaved.
            let outcomes = self.write(batch).await;
            self.forget(ticket, batch);
            return outcomes;
        }
        match self.shared.random.below(3) {
            0 => self.finish(ticket, true).await,
            1 => self.finish(ticket, false).await,
            _ if batch.commit_by.is_some() => self.commit_late(ticket, batch)?,
            _ => {
                let late = self.clone();
                tokio::spawn(async move {
                    for _ in 0..3 {
                        late.take_time().await;
                    }
                    let commit = late.shared.random.chance(0.5);
                    late.finish(ticket, commit).await;
                });
            }
        }
        Err(StoreError::unknown(
            Some(Ticket(ticket)),
            "simulated loss of the answer",
        ))
    }

    /// The transaction has found that it is in time, and is held up before its commit.
    fn commit_late(&self, ticket: u64, batch: &Batch) -> Result<(), StoreError> {
        let begun = match self.shared.inner.begin(batch.clone()) {
            Ok(begun) => begun,
            Err(error) => {
                self.forget(ticket, batch);
                return Err(error);
            }
        };
        let (late, batch) = (self.clone(), batch.clone());
        tokio::spawn(async move {
            for _ in 0..3 {
                late.take_time().await;
            }
            let commits = late.shared.random.chance(0.5);
            let outcomes = commits.then(|| begun.commit());
            let mut resolution = Resolution::Aborted;
            if let Some(Ok(outcomes)) = outcomes {
                late.state().applied.note(&batch, &outcomes);
                resolution = Resolution::Committed;
            }
            late.state().resolved.insert(ticket, resolution);
            late.forget(ticket, &batch);
        });
        Ok(())
    }

    /// Numbers a batch that is under way.
    fn begin(&self, batch: &Batch) -> u64 {
        let mut state = self.state();
        state.tickets += 1;
        let ticket = state.tickets;
        state.pending.insert(ticket, batch.clone());
        ticket
    }

    /// The batch is on its way to the store, and its sender hears no more of it.
    fn begin_later(&self, batch: Batch) -> StoreError {
        let ticket = self.begin(&batch);
        let late = self.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                late.take_time().await;
            }
            late.lock_rows(&batch).await;
            let commit = late.shared.random.chance(0.8);
            late.finish(ticket, commit).await;
        });
        StoreError::unknown(Some(Ticket(ticket)), "simulated loss of the connection")
    }

    /// Commits a batch.
    async fn write(&self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        let mut batch = batch.clone();
        let faults = self.state().faults;
        if faults.ignores_guards {
            for write in &mut batch.writes {
                if let Guard::IfNewer(_) | Guard::Flush { .. } = write.guard {
                    write.guard = Guard::Always;
                }
            }
        }
        let outcomes = self.shared.inner.apply(&batch).await;
        if faults.forgets_deletions {
            for write in &batch.writes {
                let later = batch.now.after(Duration::from_millis(1));
                let swept = self
                    .shared
                    .inner
                    .sweep(write.table, later, Duration::ZERO, usize::MAX);
                drop(swept.await);
            }
        }
        if let Ok(outcomes) = &outcomes {
            self.state().applied.note(&batch, outcomes);
        }
        outcomes
    }

    fn forget(&self, ticket: u64, batch: &Batch) {
        let mut state = self.state();
        state.pending.remove(&ticket);
        for write in &batch.writes {
            state.locked.remove(&(write.table, write.key.clone()));
        }
        drop(state);
        self.shared.unlocked.notify_waiters();
    }
}

impl Store for FaultyStore {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            lanes: 2,
            batch_max: 8,
            durable: true,
        }
    }

    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        Box::pin(async move {
            let table = self.shared.inner.open_table(spec).await?;
            self.state().applied.tables.insert(spec.name.clone(), table);
            Ok(table)
        })
    }

    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.shared.inner.open_generation(at_least)
    }

    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(async move {
            {
                let mut state = self.state();
                state.calls.loads += 1;
                state.calls.loaded_keys += keys.len() as u64;
            }
            self.take_time_or_fail().await?;
            let broken = self.state().faults.broken_table;
            if keys.iter().any(|(table, _)| Some(*table) == broken) {
                return Err(StoreError::refused(
                    Some("42P01"),
                    "simulated loss of a table",
                ));
            }
            let loaded = self.shared.inner.load(keys, now).await;
            // The answer travels, and what it says may be outdated when it arrives.
            self.take_time().await;
            loaded
        })
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move {
            {
                let mut state = self.state();
                state.calls.applies += 1;
                state.calls.applied_writes += batch.writes.len() as u64;
            }
            let outcomes = self.apply_faulty(batch).await;
            self.take_time().await;
            outcomes
        })
    }

    fn resolve(&self, ticket: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        Box::pin(async move {
            self.take_time_or_fail().await?;
            let state = self.state();
            if state.pending.contains_key(&ticket.0) {
                return Ok(Resolution::Pending);
            }
            Ok(state
                .resolved
                .get(&ticket.0)
                .copied()
                .unwrap_or(Resolution::Forgotten))
        })
    }

    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        self.shared.inner.scan(table, after, limit, now)
    }

    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.shared.inner.count(table, now)
    }

    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(async move {
            self.take_time_or_fail().await?;
            self.shared.inner.sweep(table, now, remember, limit).await
        })
    }

    fn many_nodes(&self) -> Option<&dyn ManyNodes> {
        Some(self)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.inner.ping()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl ManyNodes for FaultyStore {
    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, StoreError>> {
        Box::pin(async move {
            self.take_time_or_fail().await?;
            let horizon = self.shared.inner.horizon().await;
            // What it says is of the past when it arrives.
            self.take_time().await;
            horizon
        })
    }

    fn agree<'a>(
        &'a self,
        node: NodeId,
        settings: &'a [ClassSettings],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.take_time_or_fail().await?;
            self.shared.inner.agree(node, settings).await
        })
    }

    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.inner.leave(node)
    }

    fn outside_changes(
        &self,
        after: Option<OutsideCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Outside, StoreError>> {
        Box::pin(async move {
            self.take_time_or_fail().await?;
            self.shared.inner.outside_changes(after, limit).await
        })
    }
}
