//! The bounds on what a class may have unflushed, and who waits for room under them.
//!
//! Counted are the dirty entries in the lanes (those on their way to the store and those it refuses, too) and
//! the writes admitted and on their way there. What waits for room waits in line: room goes to writes in the
//! order in which they came, and none overtakes another of its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard, Notify};

/// From this share of a bound on the flusher does not linger.
const SOFT: f64 = 0.5;
/// From this share of a bound on writers are paced.
const HIGH: f64 = 0.8;

/// Dirty bytes and entries of one class. See the [module](self).
///
/// All operations are sequentially consistent: whoever gives room back sees who waits for it, or is seen.
pub(crate) struct DirtyBudget {
    bytes: AtomicU64,
    bytes_max: u64,
    entries: AtomicU64,
    entries_max: u64,
    /// How many wait in `line`, or are about to leave it.
    waiting: AtomicUsize,
    /// Whoever holds it is the next to get room.
    line: Mutex<()>,
    freed: Notify,
}

impl DirtyBudget {
    pub(crate) fn new(bytes_max: u64, entries_max: u64) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            bytes_max,
            entries: AtomicU64::new(0),
            entries_max,
            waiting: AtomicUsize::new(0),
            line: Mutex::const_new(()),
            freed: Notify::const_new(),
        }
    }

    /// Takes room for one entry of so many bytes, if there is room. A write larger than the whole bound is
    /// admitted when nothing else is, for it would otherwise never be.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Admitted> {
        let room = |used| (used < self.entries_max).then_some(used + 1);
        self.entries
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
            .ok()?;
        if !self.try_take_bytes(bytes) {
            // Nobody is woken: whoever waits would wake itself, over and over. What is in the way is dirty and
            // wakes them when it goes.
            self.entries.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(self.admitted(bytes))
    }

    /// As [`try_take`](Self::try_take), for a write that adds no entry in the end.
    pub(crate) fn try_take_over(self: &Arc<Self>, bytes: u64) -> Option<Admitted> {
        self.try_take_bytes(bytes).then(|| {
            self.entries.fetch_add(1, Ordering::SeqCst);
            self.admitted(bytes)
        })
    }

    fn try_take_bytes(&self, bytes: u64) -> bool {
        self.bytes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                (used == 0 || used.saturating_add(bytes) <= self.bytes_max).then(|| used + bytes)
            })
            .is_ok()
    }

    /// Takes room for one entry of so many bytes without asking.
    pub(crate) fn force_take(self: &Arc<Self>, bytes: u64) -> Admitted {
        self.take(bytes);
        self.admitted(bytes)
    }

    /// One entry is no more, of so many bytes; the room of these is given back with what is returned.
    pub(crate) fn give_later(self: &Arc<Self>, bytes: u64) -> Admitted {
        self.release(0, 1);
        Admitted {
            budget: Arc::clone(self),
            bytes,
            entries: 0,
        }
    }

    fn admitted(self: &Arc<Self>, bytes: u64) -> Admitted {
        Admitted {
            budget: Arc::clone(self),
            bytes,
            entries: 1,
        }
    }

    /// Counts one entry of so many bytes: it is there already.
    pub(crate) fn take(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.entries.fetch_add(1, Ordering::SeqCst);
    }

    /// Gives the room of one entry back and wakes those who wait.
    pub(crate) fn give(&self, bytes: u64) {
        self.release(bytes, 1);
    }

    fn release(&self, bytes: u64, entries: u64) {
        let bytes_before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        let entries_before = self.entries.fetch_sub(entries, Ordering::SeqCst);
        debug_assert!(
            bytes_before >= bytes && entries_before >= entries,
            "more given back than was taken"
        );
        if self.is_awaited() {
            self.freed.notify_waiters();
        }
    }

    /// True if somebody waits for room, and those who come later must wait behind.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Joins the line for room.
    pub(crate) async fn line_up(&self) -> InLine<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let place = Place(self);
        let turn = self.line.lock().await;
        InLine {
            budget: self,
            _turn: turn,
            _place: place,
        }
    }

    /// Bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::SeqCst)
    }

    /// How much of a bound is used, of the one that is nearer: 1 is full.
    pub(crate) fn share(&self) -> f64 {
        let of = |used: u64, max: u64| used as f64 / max.max(1) as f64;
        let bytes = of(self.bytes(), self.bytes_max);
        bytes.max(of(self.entries(), self.entries_max))
    }

    /// True if the flusher should not linger any more.
    pub(crate) fn is_past_soft(&self) -> bool {
        self.share() > SOFT
    }

    /// How far it is from the high mark (0) to the bound (1); nothing below the high mark.
    pub(crate) fn past_high(&self) -> Option<f64> {
        let past = (self.share() - HIGH) / (1.0 - HIGH);
        (past > 0.0).then(|| past.min(1.0))
    }
}

/// The next to get room, as long as this lives.
pub(crate) struct InLine<'a> {
    budget: &'a DirtyBudget,
    // Dropped in this order: who comes next has the lock before the count says that nobody waits.
    _turn: MutexGuard<'a, ()>,
    _place: Place<'a>,
}

impl InLine<'_> {
    /// Returns when `attempt` succeeds, which is made now and whenever room is given back.
    pub(crate) async fn retry<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        loop {
            // Registered before the attempt, so that what is freed between the two is not missed.
            let freed = self.budget.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(taken) = attempt() {
                return taken;
            }
            freed.await;
        }
    }
}

struct Place<'a>(&'a DirtyBudget);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Room that was taken for writes on their way to become dirty. Dropped, it is given back.
pub(crate) struct Admitted {
    budget: Arc<DirtyBudget>,
    bytes: u64,
    entries: u64,
}

impl Admitted {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if it is room under this bound.
    pub(crate) fn is_of(&self, budget: &Arc<DirtyBudget>) -> bool {
        Arc::ptr_eq(&self.budget, budget)
    }

    /// Adds the room of `other`, which is of the same class.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.entries += std::mem::take(&mut other.entries);
    }

    /// Takes the room of one entry of up to so many bytes out.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        let entries = 1.min(self.entries);
        self.bytes -= bytes;
        self.entries -= entries;
        Self {
            budget: Arc::clone(&self.budget),
            bytes,
            entries,
        }
    }

    /// Takes room for so many bytes more, if there is room, or if nothing else is there.
    pub(crate) fn try_grow(&mut self, more: u64) -> bool {
        let (mine, max) = (self.bytes, self.budget.bytes_max);
        let grown = self
            .budget
            .bytes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                (used <= mine || used.saturating_add(more) <= max).then(|| used + more)
            })
            .is_ok();
        if grown {
            self.bytes += more;
        }
        grown
    }

    /// Takes room for so many bytes more without asking.
    pub(crate) fn grow(&mut self, more: u64) {
        self.budget.bytes.fetch_add(more, Ordering::SeqCst);
        self.bytes += more;
    }

    /// The write became a dirty entry of so many bytes, which is counted from here on.
    pub(crate) fn settle(mut self, bytes: u64) {
        self.budget.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.budget.entries.fetch_add(1, Ordering::SeqCst);
        let (bytes, entries) = (
            std::mem::take(&mut self.bytes),
            std::mem::take(&mut self.entries),
        );
        self.budget.release(bytes, entries);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.bytes > 0 || self.entries > 0 {
            self.budget.release(self.bytes, self.entries);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    fn budget(bytes: u64, entries: u64) -> Arc<DirtyBudget> {
        Arc::new(DirtyBudget::new(bytes, entries))
    }

    async fn room(budget: &Arc<DirtyBudget>, bytes: u64) -> Admitted {
        let line = budget.line_up().await;
        line.retry(|| budget.try_take(bytes)).await
    }

    #[tokio::test]
    async fn who_waits_gets_room_when_it_is_given_back_and_in_order() {
        let budget = budget(100, 10);
        let first = budget.try_take(80).unwrap();
        assert!(budget.try_take(30).is_none());
        let large = room(&budget, 60);
        let small = room(&budget, 10);
        tokio::pin!(large, small);
        assert!(poll!(&mut large).is_pending());
        assert!(
            poll!(&mut small).is_pending(),
            "there is room for it, but it came later"
        );
        assert!(budget.is_awaited());
        drop(first);
        let large = poll!(&mut large);
        assert!(large.is_ready());
        let small = poll!(&mut small);
        assert!(small.is_ready());
        assert_eq!((budget.bytes(), budget.entries()), (70, 2));
        assert!(!budget.is_awaited());
        drop((large, small));
        assert_eq!((budget.bytes(), budget.entries()), (0, 0));
    }

    #[tokio::test]
    async fn who_leaves_the_line_lets_the_next_one_through() {
        let budget = budget(100, 10);
        let held = budget.try_take(100).unwrap();
        let mut first = Box::pin(room(&budget, 50));
        let mut second = Box::pin(room(&budget, 50));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        drop(first);
        drop(held);
        assert!(poll!(&mut second).is_ready());
        assert!(!budget.is_awaited());
    }

    #[test]
    fn what_is_larger_than_the_bound_is_admitted_alone() {
        let budget = budget(100, 10);
        let _large = budget.try_take(500).unwrap();
        assert!(budget.try_take(1).is_none());
    }

    #[test]
    fn entries_have_a_bound_of_their_own() {
        let budget = budget(1_000_000, 2);
        let taken = (budget.try_take(1), budget.try_take(1));
        assert!(taken.0.is_some() && taken.1.is_some());
        assert!(budget.try_take(1).is_none());
        assert_eq!((budget.bytes(), budget.entries()), (2, 2));
    }

    #[test]
    fn room_is_split_joined_and_settled_without_loss() {
        let budget = budget(1_000, 10);
        let mut all = budget.try_take(300).unwrap();
        all.join(budget.try_take(200).unwrap());
        assert_eq!((budget.bytes(), budget.entries()), (500, 2));
        let part = all.split(150);
        assert!(all.try_grow(50));
        assert_eq!((part.bytes(), all.bytes()), (150, 400));
        part.settle(100);
        drop(all);
        assert_eq!((budget.bytes(), budget.entries()), (100, 1));
        budget.give(100);
        assert_eq!((budget.bytes(), budget.entries()), (0, 0));
    }

    #[test]
    fn marks_are_shares_of_the_nearer_bound() {
        let budget = budget(1_000, 10);
        let mut kept: Vec<_> = (0..5).map(|_| budget.try_take(1).unwrap()).collect();
        assert!(!budget.is_past_soft());
        kept.push(budget.try_take(1).unwrap());
        assert!(budget.is_past_soft() && budget.past_high().is_none());
        kept.push(budget.try_take(894).unwrap());
        assert!(
            budget
                .past_high()
                .is_some_and(|past| (past - 0.5).abs() < 0.01)
        );
    }
}
