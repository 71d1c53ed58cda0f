//! What the handle, the writer and the keeper of a journal have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use tidegate_core::port::{JournalError, Lsn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::config::JournalConfig;
use super::io::Disk;
use super::segment::Segments;

/// State that more than one thread needs.
pub(super) struct Shared {
    pub(super) config: JournalConfig,
    pub(super) disk: Arc<dyn Disk>,
    /// Appends on their way to the writer.
    pub(super) queue: Queue,
    /// One permit for each byte that may wait in the queue.
    pub(super) room: Arc<Semaphore>,
    segments: Mutex<Segments>,
    /// Bytes of all files, the one being made ready included.
    pub(super) bytes: AtomicU64,
    /// The lsn after the last durable record. Written by the writer alone.
    tail: AtomicU64,
    /// The first failure; set once, never taken back.
    poison: OnceLock<JournalError>,
    /// Tells the keeper to give up what it fills.
    pub(super) stopping: AtomicBool,
    /// Readers hold it while they read, the keeper while it removes.
    pub(super) removal: RwLock<()>,
    /// True when the threads have let go of everything.
    pub(super) finished: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(
        config: JournalConfig,
        disk: Arc<dyn Disk>,
        segments: Segments,
        bytes: u64,
        tail: u64,
    ) -> Self {
        Self {
            room: Arc::new(Semaphore::new(config.queued_bytes_max)),
            config,
            disk,
            queue: Queue::default(),
            segments: Mutex::new(segments),
            bytes: AtomicU64::new(bytes),
            tail: AtomicU64::new(tail),
            poison: OnceLock::new(),
            stopping: AtomicBool::new(false),
            removal: RwLock::new(()),
            finished: watch::Sender::new(false),
        }
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    pub(super) fn set_tail(&self, tail: u64) {
        self.tail.store(tail, Ordering::Release);
    }

    /// Why nothing is accepted any more, if so.
    pub(super) fn usable(&self) -> Result<(), JournalError> {
        if let Some(error) = self.poison.get() {
            return Err(error.clone());
        }
        if self.queue.is_closed() {
            return Err(closed());
        }
        Ok(())
    }

    /// Why an append that was under way is refused.
    pub(super) fn refusal(&self) -> JournalError {
        self.poison.get().cloned().unwrap_or_else(closed)
    }

    pub(super) fn poison(&self) -> Option<&JournalError> {
        self.poison.get()
    }

    /// Accepts nothing from here on. Keeps the first error of several.
    pub(super) fn set_poison(&self, error: JournalError) -> JournalError {
        let error = self.poison.get_or_init(|| {
            tracing::error!(%error, "the journal accepts nothing more");
            error
        });
        self.room.close();
        error.clone()
    }
}

fn closed() -> JournalError {
    JournalError::unavailable("the journal is closed")
}

/// An append that waits for the writer.
pub(super) struct Pending {
    pub(super) records: Vec<Bytes>,
    /// What the records need in a segment.
    pub(super) encoded_bytes: usize,
    pub(super) answer: oneshot::Sender<Result<Lsn, JournalError>>,
    /// Room in the queue, given back with the answer.
    pub(super) room: OwnedSemaphorePermit,
}

/// Appends in the order they came. The writer takes all there are at once.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Queued>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queued {
    pending: Vec<Pending>,
    closed: bool,
    /// The writer waits, so it must be woken.
    waiting: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an append; gives it back when the queue is closed.
    pub(super) fn push(&self, pending: Pending) -> Result<(), Pending> {
        let mut queued = self.lock();
        if queued.closed {
            return Err(pending);
        }
        queued.pending.push(pending);
        let wake = std::mem::take(&mut queued.waiting);
        drop(queued);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves all that is queued to the end of `into`. Waits for something if `into` is empty; returns with
    /// nothing only when the queue is closed.
    pub(super) fn take(&self, into: &mut impl Extend<Pending>, wait: bool) {
        let mut queued = self.lock();
        while wait && queued.pending.is_empty() && !queued.closed {
            queued.waiting = true;
            queued = self
                .arrived
                .wait(queued)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queued.waiting = false;
        into.extend(queued.pending.drain(..));
    }

    /// Lets nothing more in; what is queued stays for the writer.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }
}
