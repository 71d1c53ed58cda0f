//! The bound on the dirty bytes of a class, and what waits for room under it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Dirty bytes of one class: those in the lanes and those admitted and on their way there.
pub(crate) struct DirtyBudget {
    used: AtomicU64,
    max: u64,
    freed: Notify,
}

impl DirtyBudget {
    pub(crate) fn new(max: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            max,
            freed: Notify::new(),
        }
    }

    /// Takes `bytes` if there is room. A write larger than the whole bound is admitted when nothing else is,
    /// for it would otherwise never be.
    pub(crate) fn try_take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used == 0 || used.saturating_add(bytes) <= self.max).then(|| used + bytes)
            })
            .is_ok()
    }

    /// Takes `bytes` without asking: they are there already.
    pub(crate) fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives `bytes` back and wakes those who wait.
    pub(crate) fn give(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(
            before >= bytes,
            "more dirty bytes given back than were taken"
        );
        self.freed.notify_waiters();
    }

    /// Returns when there is room for `bytes` and has taken it. Dropped half-way it has taken nothing.
    pub(crate) async fn wait_and_take(&self, bytes: u64) {
        loop {
            // Registered before the attempt, so that what is freed between the two is not missed.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.try_take(bytes) {
                return;
            }
            freed.await;
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_gets_room_when_it_is_given_back() {
        let budget = DirtyBudget::new(100);
        assert!(budget.try_take(80));
        assert!(!budget.try_take(30));
        let waiting = budget.wait_and_take(30);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        budget.give(80);
        assert!(futures_util::poll!(&mut waiting).is_ready());
        assert_eq!(budget.used(), 30);
    }

    #[test]
    fn what_is_larger_than_the_bound_is_admitted_alone() {
        let budget = DirtyBudget::new(100);
        assert!(budget.try_take(500));
        assert!(!budget.try_take(1));
    }
}
