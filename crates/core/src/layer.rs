//! Everything the parts of one gate share, and nothing of what they do.

use std::future::Future;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::age::AgeWatch;
use crate::budget::DirtyBudget;
use crate::class::{Class, ClassSet};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::flush;
use crate::hash::Hasher;
use crate::key::Key;
use crate::lane::Lane;
use crate::mutation::Mutations;
use crate::near::{Copy, Near};
use crate::port::{Clock, Journal, JournalError, Lsn, NodeId, SharedCache, Store, TableId};
use crate::shared::{Shared, SharedSettings, covers};
use crate::stats::Counters;
use crate::version::Version;

/// A class and what the layer keeps beside its settings.
pub(crate) struct ClassState {
    /// Shared, because every error of the class names it.
    pub(crate) name: Arc<str>,
    /// Where its rows are; nothing for a class without a store.
    pub(crate) table: Option<TableId>,
    pub(crate) counters: Counters,
    pub(crate) budget: Arc<DirtyBudget>,
    pub(crate) age: AgeWatch,
}

/// The shared state of a gate.
pub(crate) struct Layer {
    pub(crate) classes: ClassSet,
    /// As long as `classes`, in the same order.
    pub(crate) states: Vec<ClassState>,
    pub(crate) near: Near,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) store: Arc<dyn Store>,
    /// How many writes the store takes at once. Asked once: it is needed for every write.
    pub(crate) batch_max: usize,
    pub(crate) journal: Option<Arc<dyn Journal>>,
    /// The cache that other nodes have too, if there is one.
    pub(crate) shared: Option<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Picks lanes.
    hasher: Hasher,
    /// The last version this process issued (write-back and cache-only).
    issued: AtomicU64,
    /// Set once: no new work is taken.
    closing: AtomicBool,
    /// Set once: drivers end when their queues are empty.
    stopping: AtomicBool,
    /// Wakes the sweeper when the layer stops.
    pub(crate) stopped: Notify,
    /// Wakes whoever sleeps when the layer stops.
    halted: Notify,
    /// Why the journal accepts nothing more, once it does not.
    journal_failure: OnceLock<Error>,
    /// The mark of the last checkpoint in the journal, and when it was written.
    pub(crate) checkpointed: Mutex<(Lsn, Duration)>,
    /// Everything this layer spawned, for the drain to wait for.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What all flushers share.
    pub(crate) flusher: flush::Control,
    pub(crate) mutations: Mutations,
}

/// What a layer is made of.
pub(crate) struct Parts {
    pub(crate) classes: ClassSet,
    pub(crate) states: Vec<ClassState>,
    pub(crate) near_bytes: u64,
    pub(crate) lanes: usize,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) journal: Option<Arc<dyn Journal>>,
    pub(crate) shared: Option<(Arc<dyn SharedCache>, SharedSettings, NodeId)>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) generation: u64,
    pub(crate) mutations: Mutations,
}

impl Layer {
    pub(crate) fn new(parts: Parts) -> Self {
        let hasher = Hasher::with_seed(parts.clock.random());
        let capabilities = parts.store.capabilities();
        let lanes = parts.lanes.max(1);
        let shared = parts
            .shared
            .map(|(cache, settings, node)| Shared::new(cache, settings, node, lanes, &hasher));
        Self {
            flusher: flush::Control::new(capabilities.lanes, capabilities.batch_max),
            batch_max: capabilities.batch_max.max(1),
            classes: parts.classes,
            states: parts.states,
            near: Near::new(parts.near_bytes, &hasher),
            lanes: (0..lanes)
                .map(|_| Lane::new(&hasher, parts.mutations))
                .collect(),
            store: parts.store,
            journal: parts.journal,
            shared,
            clock: parts.clock,
            hasher,
            issued: AtomicU64::new(Version::compose(parts.generation, 0).raw()),
            closing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: Notify::new(),
            halted: Notify::new(),
            journal_failure: OnceLock::new(),
            checkpointed: Mutex::new((Lsn(0), Duration::ZERO)),
            tasks: Mutex::new(Vec::new()),
            mutations: parts.mutations,
        }
    }

    /// The class of `key`, as an index.
    pub(crate) fn class_of(&self, key: &[u8]) -> usize {
        self.classes.find(key)
    }

    pub(crate) fn class(&self, index: usize) -> &Class {
        &self.classes.classes()[index]
    }

    pub(crate) fn state(&self, index: usize) -> &ClassState {
        &self.states[index]
    }

    pub(crate) fn lane_of(&self, key: &[u8]) -> &Lane {
        &self.lanes[self.lane_index(key)]
    }

    pub(crate) fn lane_index(&self, key: &[u8]) -> usize {
        // The upper bits of a folded hash are as good as the lower; the remainder is exact.
        usize::try_from(self.hasher.hash_one(key) % self.lanes.len() as u64).unwrap_or(0)
    }

    /// A version of this process, newer than every one before it. Even: the odd ones are of rows that others
    /// changed, see [`Version::raised_outside`].
    pub(crate) fn issue(&self) -> Version {
        let last = self.issued.fetch_add(2, Ordering::Relaxed);
        Version::from_raw((last + 2) & !1)
    }

    /// A version newer than the row that a write goes over, if that is known.
    pub(crate) fn issue_over(&self, row: Option<Version>) -> Version {
        let version = self.issue();
        match row {
            Some(row) if row >= version => {
                self.issue_above(row);
                self.issue()
            }
            _ => version,
        }
    }

    /// Newer than this is no version issued here so far, nor by an earlier start on the same store.
    pub(crate) fn newest_issued(&self) -> Version {
        Version::from_raw(self.issued.load(Ordering::Relaxed))
    }

    /// Versions issued from now on are newer than `version`, as far as there are any.
    pub(crate) fn issue_above(&self, version: Version) {
        let own = Version::from_raw(self.issued.load(Ordering::Relaxed)).generation();
        let floor = match version.generation() > own {
            // Numbered by a process that started later.
            true => Version::compose(version.generation() + 1, 0),
            false => version,
        };
        self.issued.fetch_max(floor.raw(), Ordering::Relaxed);
    }

    /// How long a copy made now may be used: the class's ttl less its jitter, or for an absent key the
    /// negative ttl. The outer nothing: not to be kept at all.
    #[expect(
        clippy::option_option,
        reason = "not kept, kept for ever and kept until are three things"
    )]
    pub(crate) fn fresh_until(&self, class: usize, present: bool) -> Option<Option<Duration>> {
        let class = self.class(class);
        if !present {
            let ttl = class
                .ttl
                .map_or(class.negative_ttl, |ttl| ttl.min(class.negative_ttl));
            return (!ttl.is_zero()).then(|| Some(self.clock.elapsed().saturating_add(ttl)));
        }
        let Some(ttl) = class.ttl else {
            return Some(None);
        };
        let kept = self.jittered(ttl, class.ttl_jitter);
        Some(Some(self.clock.elapsed().saturating_add(kept)))
    }

    /// `ttl` less a random part of it, at most the share `jitter`.
    pub(crate) fn jittered(&self, ttl: Duration, jitter: f64) -> Duration {
        // 53 bits of the random number make a fraction in [0, 1).
        let fraction = (self.clock.random() >> 11) as f64 / (1_u64 << 53) as f64;
        let share = 1.0 - jitter * fraction;
        // A ttl too long for the arithmetic is as good without jitter.
        let kept = Duration::try_from_secs_f64(ttl.as_secs_f64() * share).unwrap_or(ttl);
        kept.max(Duration::from_millis(1))
    }

    /// Puts the state of `key` into the near cache. The caller holds the lane's lock.
    pub(crate) fn fill(&self, key: &Key, class: usize, entry: Option<&Entry>, version: Version) {
        match self.fresh_until(class, entry.is_some()) {
            Some(until) => self.near.put(key.clone(), Copy::of(entry, version, until)),
            None => drop(self.near.remove(key.as_bytes())),
        }
    }

    /// The oldest journal record that some lane still needs; if none does, the next to be written.
    pub(crate) fn journal_needed_from(&self, journal: &dyn Journal) -> Lsn {
        // Read before the lanes are: what is appended later is at or after it.
        let mut mark = journal.tail();
        for lane in &self.lanes {
            if let Some(needed) = lane.lock().journal_needed_from() {
                mark = mark.min(needed);
            }
        }
        if let Some(shared) = &self.shared
            && let Some(needed) = shared.back.kept.needed_from()
        {
            mark = mark.min(needed);
        }
        mark
    }

    /// No new work from now on. False if it was so before.
    pub(crate) fn close(&self) -> bool {
        !self.closing.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Drivers end when their queues are empty.
    pub(crate) fn stop(&self) {
        self.close();
        self.stopping.store(true, Ordering::Release);
        self.lanes.iter().for_each(Lane::wake_all);
        self.stopped.notify_one();
        self.flusher.stopped.notify_one();
        self.halted.notify_waiters();
        if let Some(shared) = &self.shared {
            shared.wake_all();
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sleeps, and wakes when the layer stops.
    pub(crate) async fn sleep_or_stop(&self, wait: Duration) {
        let halted = self.halted.notified();
        tokio::pin!(halted);
        // Registered before looking, so that it is not missed.
        halted.as_mut().enable();
        if !self.is_stopping() {
            select(halted, self.clock.sleep(wait)).await;
        }
    }

    /// The shared cache, if keys of this class are in it.
    pub(crate) fn shared_of(&self, class: usize) -> Option<&Shared> {
        let shared = self.shared.as_ref()?;
        covers(self.class(class).strategy).then_some(shared)
    }

    /// A poisoned journal stays so: the writes whose sync failed have an unknown outcome, and those after
    /// them are refused before anything is done.
    pub(crate) fn note_journal_failure(&self, error: &JournalError) {
        if matches!(error, JournalError::Poisoned { .. }) {
            let refusal = Error::new(ErrorKind::Unavailable, error);
            if self.journal_failure.set(refusal).is_ok() {
                tracing::error!(%error, "the journal takes nothing until the next start: each class does as its when_journal_fails says");
            }
        }
    }

    pub(crate) fn journal_failure(&self) -> Option<Error> {
        self.journal_failure.get().cloned()
    }

    /// Starts a task that the drain will wait for. It must end soon after [`stop`](Self::stop).
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task));
    }

    /// The tasks started so far.
    pub(crate) fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
