//! A journal with points around what it makes durable.

use std::sync::Arc;

use bytes::Bytes;
use tidegate::port::{BoxFuture, Journal, JournalError, Lsn, Replayed};

use super::hit;

/// The second byte of a record says what it is, as the head of the core's record format has it.
const CHECKPOINT: u8 = 3;
const DISCARDED: u8 = 5;
/// This bit is set for a dead letter.
const PARKED: u8 = 128;

pub(crate) struct FailingJournal(pub(crate) Arc<dyn Journal>);

fn point(records: &[Bytes]) -> &'static str {
    match records.first().and_then(|record| record.get(1)) {
        Some(&CHECKPOINT) => "checkpoint",
        Some(&DISCARDED) => "discard",
        Some(kind) if kind & PARKED != 0 => "park",
        _ => "append",
    }
}

impl Journal for FailingJournal {
    fn submit(&self, records: &[Bytes]) -> Result<Lsn, JournalError> {
        hit(point(records), "before");
        let taken = self.0.submit(records)?;
        hit(point(records), "after");
        Ok(taken)
    }

    fn wait(&self, last: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            hit("sync", "before");
            self.0.wait(last).await?;
            hit("sync", "after");
            Ok(())
        })
    }

    fn synced(&self) -> Lsn {
        self.0.synced()
    }

    fn room(&self, records: &[Bytes]) -> BoxFuture<'_, Result<(), JournalError>> {
        self.0.room(records)
    }

    fn tail(&self) -> Lsn {
        self.0.tail()
    }

    fn replay(
        &self,
        from: Lsn,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Replayed>, JournalError>> {
        self.0.replay(from, limit)
    }

    fn trim(&self, to: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            hit("trim", "before");
            self.0.trim(to).await?;
            hit("trim", "after");
            Ok(())
        })
    }

    fn crowded_before(&self) -> Option<Lsn> {
        self.0.crowded_before()
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn size_bytes_max(&self) -> Option<u64> {
        self.0.size_bytes_max()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}
