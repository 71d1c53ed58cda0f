//! A journal on a disk that forgets what was not synced, and whose syncs may fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::port::{BoxFuture, Journal, JournalError, Lsn, Replayed};

use super::Random;

/// With more records than these the journal asks its owner to move those it needs.
const CROWDED_RECORDS: usize = 64;

/// How a journal misbehaves.
#[derive(Clone, Copy, Debug)]
pub struct JournalFaults {
    /// A sync takes up to this long.
    pub sync_max: Duration,
    /// The share of syncs that fail and poison the journal.
    pub fail: f64,
    /// The share of records that find no room.
    pub full: f64,
    /// Answers before the sync: a broken promise, for checking that the checker sees it.
    pub answers_early: bool,
}

/// What outlives a crash.
#[derive(Clone, Default)]
pub struct SimDisk {
    records: Arc<Mutex<Records>>,
}

#[derive(Default)]
struct Records {
    /// Records before the first of `kept` were trimmed.
    trimmed: u64,
    kept: Vec<Bytes>,
    /// How many of `kept` a crash cannot take.
    synced: usize,
}

impl Records {
    fn is_synced(&self, last: Lsn) -> bool {
        last.0 <= self.trimmed + self.synced as u64
    }
}

impl SimDisk {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power is lost: of what was not synced, the end is gone.
    pub fn crash(&self, random: &Random) {
        let mut records = self.lock();
        let unsynced = (records.kept.len() - records.synced) as u64;
        let survive = usize::try_from(random.below(unsynced + 1)).unwrap_or(0);
        let keep = records.synced + survive;
        records.kept.truncate(keep);
        records.synced = keep;
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().kept.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A journal on a [`SimDisk`], which forgets what was not synced, and whose syncs may fail.
pub struct FaultyJournal {
    disk: SimDisk,
    faults: JournalFaults,
    random: Random,
    poisoned: Mutex<bool>,
}

impl FaultyJournal {
    /// The journal of this disk, opened anew.
    #[must_use]
    pub fn new(disk: SimDisk, faults: JournalFaults, random: Random) -> Self {
        Self {
            disk,
            faults,
            random,
            poisoned: Mutex::new(false),
        }
    }

    fn poison(&self) -> MutexGuard<'_, bool> {
        self.poisoned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "time is paused here")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

impl Journal for FaultyJournal {
    fn submit(&self, submitted: &[Bytes]) -> Result<Lsn, JournalError> {
        if *self.poison() {
            return Err(JournalError::poisoned("an earlier sync failed"));
        }
        if !submitted.is_empty() && self.random.chance(self.faults.full) {
            return Err(JournalError::busy("the disk is full"));
        }
        let mut records = self.disk.lock();
        records.kept.extend_from_slice(submitted);
        Ok(Lsn(records.trimmed + records.kept.len() as u64))
    }

    fn wait(&self, last: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            if self.faults.answers_early || self.disk.lock().is_synced(last) {
                return Ok(());
            }
            let micros = u64::try_from(self.faults.sync_max.as_micros()).unwrap_or(u64::MAX);
            pause(Duration::from_micros(self.random.below(micros + 1))).await;
            // Somebody else's sync may have covered it.
            if self.disk.lock().is_synced(last) {
                return Ok(());
            }
            if *self.poison() || self.random.chance(self.faults.fail) {
                *self.poison() = true;
                return Err(JournalError::poisoned("the sync failed"));
            }
            let mut records = self.disk.lock();
            let synced = usize::try_from(last.0.saturating_sub(records.trimmed)).unwrap_or(0);
            records.synced = records.synced.max(synced.min(records.kept.len()));
            Ok(())
        })
    }

    fn synced(&self) -> Lsn {
        let records = self.disk.lock();
        match self.faults.answers_early {
            true => Lsn(records.trimmed + records.kept.len() as u64),
            false => Lsn(records.trimmed + records.synced as u64),
        }
    }

    fn room(&self, _records: &[Bytes]) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(std::future::ready(match self.random.chance(0.5) {
            true => Err(JournalError::full("the disk is full")),
            false => Ok(()),
        }))
    }

    fn tail(&self) -> Lsn {
        let records = self.disk.lock();
        Lsn(records.trimmed + records.kept.len() as u64 + 1)
    }

    fn replay(
        &self,
        from: Lsn,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Replayed>, JournalError>> {
        Box::pin(async move {
            let records = self.disk.lock();
            let first = records.trimmed + 1;
            let skip = usize::try_from(from.0.saturating_sub(first)).unwrap_or(usize::MAX);
            let found = records.kept.iter().enumerate().skip(skip).take(limit);
            Ok(found
                .map(|(i, record)| Replayed {
                    lsn: Lsn(first + i as u64),
                    record: record.clone(),
                })
                .collect())
        })
    }

    fn trim(&self, to: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let mut records = self.disk.lock();
            let count = usize::try_from(to.0.saturating_sub(records.trimmed + 1)).unwrap_or(0);
            // What is not synced is not trimmed: its append is still under way.
            let count = count.min(records.synced);
            records.kept.drain(..count);
            records.synced -= count;
            records.trimmed += count as u64;
            Ok(())
        })
    }

    fn crowded_before(&self) -> Option<Lsn> {
        let records = self.disk.lock();
        let half = records.kept.len() / 2;
        (half > CROWDED_RECORDS / 2).then(|| Lsn(records.trimmed + half as u64 + 1))
    }

    fn size_bytes(&self) -> u64 {
        self.disk
            .lock()
            .kept
            .iter()
            .map(|record| record.len() as u64)
            .sum()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
