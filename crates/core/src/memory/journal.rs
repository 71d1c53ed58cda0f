//! A journal in memory: durable exactly as long as its owner keeps it, which is what a test wants.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::port::{BoxFuture, Journal, JournalError, Lsn, Replayed};

/// A journal that forgets everything with the process. A clone is the same journal opened anew.
#[derive(Default)]
pub struct MemoryJournal {
    records: Arc<Mutex<Records>>,
    closed: AtomicBool,
}

impl Clone for MemoryJournal {
    fn clone(&self) -> Self {
        Self {
            records: Arc::clone(&self.records),
            closed: AtomicBool::new(false),
        }
    }
}

#[derive(Default)]
struct Records {
    /// The place of the first record kept, less one.
    trimmed: u64,
    kept: VecDeque<Bytes>,
    bytes: u64,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn tail(&self) -> Lsn {
        Lsn(self.trimmed + self.kept.len() as u64 + 1)
    }
}

fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Journal for MemoryJournal {
    fn submit(&self, records: &[Bytes]) -> Result<Lsn, JournalError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(JournalError::unavailable("the journal is closed"));
        }
        let mut kept = self.lock();
        for record in records {
            kept.bytes += record.len() as u64;
            kept.kept.push_back(record.clone());
        }
        Ok(Lsn(kept.tail().0 - 1))
    }

    fn wait(&self, _last: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        ready(Ok(()))
    }

    fn synced(&self) -> Lsn {
        Lsn(self.lock().tail().0 - 1)
    }

    fn room(&self, _records: &[Bytes]) -> BoxFuture<'_, Result<(), JournalError>> {
        ready(Ok(()))
    }

    fn tail(&self) -> Lsn {
        self.lock().tail()
    }

    fn replay(
        &self,
        from: Lsn,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Replayed>, JournalError>> {
        let kept = self.lock();
        let skip = usize::try_from(from.0.saturating_sub(kept.trimmed + 1)).unwrap_or(usize::MAX);
        let first = kept.trimmed + 1;
        let records = kept.kept.iter().enumerate().skip(skip).take(limit);
        ready(Ok(records
            .map(|(i, record)| Replayed {
                lsn: Lsn(first + i as u64),
                record: record.clone(),
            })
            .collect()))
    }

    fn trim(&self, to: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut kept = self.lock();
        while kept.trimmed + 1 < to.0 {
            let Some(record) = kept.kept.pop_front() else {
                break;
            };
            kept.bytes -= record.len() as u64;
            kept.trimmed += 1;
        }
        ready(Ok(()))
    }

    fn size_bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        ready(())
    }
}
