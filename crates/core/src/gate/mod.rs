//! The gate: what an application holds. Everything goes through it.

mod add;
mod audit;
mod builder;
mod dead_letters;
mod drain;
mod durable;
mod stats;
mod typed;
mod update;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

pub use builder::GateBuilder;
pub use typed::Typed;

use crate::class::Class;
use crate::entry::{Change, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::explain::{Explanation, explain};
use crate::flush;
use crate::key::Key;
use crate::lane::{LaneState, Operation};
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::Timestamp;
use crate::read::{self, Lookup};
use crate::receipt::{FlushReport, Read, Written};
use crate::scan::{self, ScanCursor};
use crate::shared::Session;
use crate::stats::Stats;
use crate::write::{put, write};

/// The way of an application to its data: reads from memory when it can, writes as each key's class says.
///
/// Cheap to clone; all clones are one gate. It must be opened inside a tokio runtime and works for as long as
/// that runtime does. [`drain`](Self::drain) it before the program ends; a gate that is only dropped finishes
/// what callers wait for, and leaves what is dirty to the journal.
///
/// # Cancel safety
/// Every call may be dropped at any moment. A write whose call was polled once is done wholly or not at all,
/// in its order, whether its caller waits or not.
#[derive(Clone)]
pub struct Gate {
    handle: Arc<Handle>,
}

/// Ends the drivers when the last clone of a gate goes.
struct Handle {
    layer: Arc<Layer>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.layer.stop();
    }
}

impl Gate {
    /// Begins to build a gate.
    pub fn builder() -> GateBuilder {
        GateBuilder::default()
    }

    fn layer(&self) -> &Layer {
        &self.handle.layer
    }

    /// What the near cache has of `key`: no await, no allocation. Counts a hit and never a miss.
    #[must_use]
    pub fn lookup(&self, key: &[u8]) -> Lookup {
        read::lookup(self.layer(), key)
    }

    /// Reads `key`, with its entry and a receipt.
    ///
    /// # Errors
    /// Unavailable if the store cannot be read within the class's `load_timeout` and no stale copy may be
    /// served; overloaded if too many loads are waiting.
    pub async fn read(&self, key: &[u8]) -> Result<Read> {
        read::read(self.layer(), key).await
    }

    /// Reads the value of `key`; nothing if it is absent.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let key = key.as_ref();
        match read::lookup(self.layer(), key) {
            Lookup::Hit(entry) => Ok(Some(entry.value)),
            Lookup::Negative => Ok(None),
            Lookup::Miss => Ok(self.read(key).await?.entry.map(|entry| entry.value)),
        }
    }

    /// Reads several keys at once; misses share their loads. Not a snapshot: each key is read for itself.
    ///
    /// # Errors
    /// As [`read`](Self::read), of the first key that failed.
    pub async fn get_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Bytes>>> {
        let reads = self.read_many(keys).await.into_iter();
        reads
            .map(|read| Ok(read?.entry.map(|entry| entry.value)))
            .collect()
    }

    /// Reads several keys at once, each with its entry and a receipt; misses share their loads. Not a snapshot: each key
    /// is read for itself, and has an answer or an error of its own.
    pub async fn read_many(&self, keys: &[impl AsRef<[u8]>]) -> Vec<Result<Read>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        read::read_many(self.layer(), &keys).await
    }

    /// As [`read`](Self::read) in a session: never older than what its client has seen or written, on whatever node
    /// that was. What is read is seen. Writes are to be told by [`Session::saw`], those of unknown outcome by
    /// [`Session::lost`].
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_in(&self, key: &[u8], session: &mut Session) -> Result<Read> {
        read::read_in(self.layer(), key, session).await
    }

    /// Writes `key`. It lives for ever, or until it is written again or deleted.
    ///
    /// # Errors
    /// Refused if the store will never take it; unavailable if it cannot take it now; unknown if the commit
    /// was not answered; read-only and overloaded as the class says.
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.set_with(key, value, None).await
    }

    /// Writes `key`, which dies at `expires_at`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        expires_at: Option<Timestamp>,
    ) -> Result<Written> {
        put(self.layer(), key.as_ref(), value.into(), expires_at).await
    }

    /// Writes several keys at once; those of one lane share their commits. Not atomic: each key is written
    /// for itself, and when one fails the others are not taken back.
    ///
    /// # Errors
    /// As [`set`](Self::set), of the first key that failed.
    pub async fn set_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Vec<Written>> {
        let writes = pairs.into_iter().map(|(key, value)| self.set(key, value));
        join_all(writes).await.into_iter().collect()
    }

    /// Deletes `key`; the answer tells whether it was there.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written> {
        write(self.layer(), key.as_ref(), |reply| Operation::Delete {
            reply,
        })
        .await
    }

    /// Changes `key` depending on what it holds, atomically: nothing comes between what `change` is shown and
    /// what it makes of it. It returns what to write, or nothing to leave the key as it is, and an answer for
    /// the caller.
    ///
    /// `change` runs outside this future, more than once if the row turns out to have been changed by others;
    /// only the last run counts. It must depend on nothing but what it is shown, and be quick.
    ///
    /// # Errors
    /// As [`set`](Self::set); invalid if `change` panics.
    pub async fn update<R: Send + 'static>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&Entry>) -> (Option<Change>, R) + Send + 'static,
    ) -> Result<(R, Written)> {
        update::update(self.layer(), key.as_ref(), change).await
    }

    /// Adds `by` to the whole number that `key` holds, in decimal; one that is absent counts as nought. Its end
    /// of life stays. The answer is what the number came to, as this process knows it.
    ///
    /// In a class of [deltas](Class::delta) what is added reaches the store as an addition, each exactly once,
    /// so it never overwrites what others make of the row.
    ///
    /// # Errors
    /// As [`set`](Self::set); invalid if the key holds no whole number, or the sum would leave the range of
    /// `i64`: then nothing is changed.
    pub async fn add(&self, key: impl AsRef<[u8]>, by: i64) -> Result<(i64, Written)> {
        add::add(self.layer(), key.as_ref(), by).await
    }

    /// Typed reads and writes, each value in the codec of its key's class.
    #[must_use]
    pub fn typed<T>(&self) -> Typed<T> {
        Typed::new(self.clone())
    }

    /// Drops the cached copy of `key`; true if there was one. Nothing is lost: what is dirty stays, and a
    /// read asks the store. For a class without a store the entry itself is gone.
    pub fn evict(&self, key: &[u8]) -> bool {
        let mut state = self.layer().lane_of(key).lock();
        state.loads.invalidate(key);
        self.forget(&mut state, key);
        self.layer().near.remove(key)
    }

    /// Drops the copies of `keys` as [`evict`](Self::evict) does, and those in the cache that several nodes share. How
    /// many keys had one.
    ///
    /// # Errors
    /// Unavailable if the shared cache does not answer: some may have been dropped.
    pub async fn evict_shared(&self, keys: &[impl AsRef<[u8]>]) -> Result<usize> {
        let layer = self.layer();
        let mut had: Vec<bool> = keys.iter().map(|key| self.evict(key.as_ref())).collect();
        let Some(shared) = &layer.shared else {
            return Ok(had.into_iter().filter(|had| *had).count());
        };
        let mut places = Vec::with_capacity(keys.len());
        let mut named = Vec::with_capacity(keys.len());
        for (place, key) in keys.iter().enumerate() {
            let class = layer.class_of(key.as_ref());
            if layer.shared_of(class).is_some() {
                places.push(place);
                named.push((Key::copy_from(key.as_ref()), class));
            }
        }
        let found = shared.evict(layer, &named).await?;
        for (place, found) in places.into_iter().zip(found) {
            had[place] |= found;
        }
        Ok(had.into_iter().filter(|had| *had).count())
    }

    /// As [`evict_all`](Self::evict_all), also of the cache that several nodes share.
    ///
    /// # Errors
    /// Unavailable if the shared cache does not answer: some may have been dropped.
    pub async fn evict_all_shared(&self) -> Result<()> {
        self.evict_all();
        match &self.layer().shared {
            Some(shared) => shared.clear(self.layer()).await,
            None => Ok(()),
        }
    }

    /// Drops what is dirty: a broken rule, see [`Mutation::EvictableDirtyEntry`].
    fn forget(&self, state: &mut LaneState, key: &[u8]) {
        if self.layer().mutations.breaks(Mutation::EvictableDirtyEntry)
            && let Some(entry) = state.dirty.remove(key)
        {
            let bytes = entry.bytes(&Key::copy_from(key));
            self.layer().state(entry.class).budget.give(bytes);
        }
    }

    /// Drops every cached copy. What is dirty stays.
    pub fn evict_all(&self) {
        for lane in &self.layer().lanes {
            lane.lock().loads.invalidate_all();
        }
        self.layer().near.clear();
    }

    /// Brings what is dirty now to the store, and tells what is left after `deadline`. What is written
    /// meanwhile is not waited for, and dead letters are not tried again:
    /// [`retry_dead_letters`](Self::retry_dead_letters) does that.
    ///
    /// # Errors
    /// None now; kept for gates whose cache is elsewhere.
    ///
    /// # Cancel safety
    /// Dropped, the flush goes on.
    pub async fn flush(&self, deadline: Duration) -> Result<FlushReport> {
        Ok(flush::flush(self.layer(), None, deadline).await)
    }

    /// [`flush`](Self::flush) of one class.
    ///
    /// # Errors
    /// Invalid if there is no write-back class of this name.
    ///
    /// # Cancel safety
    /// Dropped, the flush goes on.
    pub async fn flush_class(&self, name: &str, deadline: Duration) -> Result<FlushReport> {
        let class = self.write_back_class(name)?;
        Ok(flush::flush(self.layer(), Some(class), deadline).await)
    }

    /// Takes no more calls, finishes those under way, flushes everything, and closes journal and store; all
    /// within about `deadline`. What is left is in the journal. A second drain does nothing.
    ///
    /// # Errors
    /// Closed, if the gate was drained before.
    ///
    /// # Cancel safety
    /// Dropped half-way the gate takes no more calls, and what was not flushed is in the journal.
    pub async fn drain(&self, deadline: Duration) -> Result<FlushReport> {
        drain::drain(&self.handle.layer, deadline).await
    }

    /// The next page of all keys, in no promised order, and where to go on; nothing at the end. A key that is
    /// present all along is met at least once; a page may be empty before the end.
    ///
    /// # Errors
    /// Unavailable if the store cannot be read.
    pub async fn scan(
        &self,
        from: ScanCursor,
        limit: usize,
    ) -> Result<(Vec<Key>, Option<ScanCursor>)> {
        scan::scan(self.layer(), from, limit).await
    }

    /// The number of keys. Not a snapshot: what changes while it counts may or may not be counted.
    ///
    /// # Errors
    /// Unavailable if the store cannot be read.
    pub async fn count(&self) -> Result<u64> {
        scan::count(self.layer()).await
    }

    /// Returns if the store answers.
    ///
    /// # Errors
    /// Unavailable if it does not.
    pub async fn ping_store(&self) -> Result<()> {
        Ok(self.layer().store.ping().await?)
    }

    /// The classes, most specific pattern first, `default` last.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        self.layer().classes.classes()
    }

    /// The class of `key`.
    #[must_use]
    pub fn class_of(&self, key: &[u8]) -> &Class {
        self.layer().class(self.layer().class_of(key))
    }

    /// What is known of `key`, for a person. Loads nothing.
    #[must_use]
    pub fn explain(&self, key: &[u8]) -> Explanation {
        explain(self.layer(), key)
    }

    /// As [`explain`](Self::explain), and asks the cache that several nodes share, if there is one.
    pub async fn explain_shared(&self, key: &[u8]) -> Explanation {
        let layer = self.layer();
        let mut explanation = explain(layer, key);
        let class = layer.class_of(key);
        if let Some(shared) = layer.shared_of(class) {
            let state = shared.look(layer, &explanation.key, class).await;
            explanation.shared = Some((layer.class(class).level, state));
        }
        explanation
    }

    /// Returns if the cache that several nodes share answers, or there is none.
    ///
    /// # Errors
    /// Unavailable if it does not.
    pub async fn ping_shared(&self) -> Result<()> {
        let Some(shared) = &self.layer().shared else {
            return Ok(());
        };
        let pinged = shared.cache.ping().await;
        pinged.map_err(|error| Error::new(ErrorKind::Unavailable, error))?;
        // Whoever waits for the next probe need not.
        shared.reach.is_well();
        Ok(())
    }

    /// What happened so far, and what is at risk now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        stats::stats(self.layer())
    }

    /// Whether a sync of the journal failed, as [`Stats::journal_failed`] says; at little cost.
    #[must_use]
    pub fn journal_failed(&self) -> bool {
        self.layer().journal_failure().is_some()
    }

    /// Checks the bookkeeping of dirty entries; what does not add up, in words. Exact only while no write is
    /// under way. For tests and for those who look for a fault.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        audit::audit(self.layer())
    }

    /// The present, by the clock of the gate.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.layer().clock.now()
    }
}
