//! What the handle, the writer and the keeper of a journal have in common.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tidegate_core::port::JournalError;
use tokio::sync::watch;

use super::config::JournalConfig;
use super::durable::Durable;
use super::intake::{Intake, closed};
use super::io::Disk;
use super::segment::Segments;

/// State that more than one thread needs.
pub(super) struct Shared {
    pub(super) config: JournalConfig,
    pub(super) disk: Arc<dyn Disk>,
    /// Appends on their way to the writer.
    pub(super) intake: Intake,
    /// What the writer has made durable.
    pub(super) durable: Durable,
    segments: Mutex<Segments>,
    /// Bytes of all files, the one being made ready included.
    pub(super) bytes: AtomicU64,
    /// The first failure; set once, never taken back.
    poison: OnceLock<JournalError>,
    /// Tells the keeper to give up what it fills.
    pub(super) stopping: AtomicBool,
    /// Readers hold it while they read, the keeper and the writer while they remove.
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
        intake: Intake,
        tail: u64,
    ) -> Self {
        Self {
            config,
            disk,
            intake,
            durable: Durable::new(tail),
            segments: Mutex::new(segments),
            bytes: AtomicU64::new(bytes),
            poison: OnceLock::new(),
            stopping: AtomicBool::new(false),
            removal: RwLock::new(()),
            finished: watch::Sender::new(false),
        }
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if all records are in one segment.
    pub(super) fn one_segment(&self) -> bool {
        self.segments().len() == 1
    }

    /// Why an append that was under way is refused.
    pub(super) fn refusal(&self) -> JournalError {
        self.poison.get().cloned().unwrap_or_else(closed)
    }

    pub(super) fn poison(&self) -> Option<&JournalError> {
        self.poison.get()
    }

    /// Accepts nothing from here on, and tells all who wait. Keeps the first error of several.
    pub(super) fn set_poison(&self, error: JournalError) -> JournalError {
        let error = self.poison.get_or_init(|| {
            tracing::error!(%error, "the journal accepts nothing more");
            error
        });
        self.durable.stop();
        self.intake.written.notify_waiters();
        error.clone()
    }
}
