//! How far the journal is durable, and who waits for it.
//!
//! One number tells all: everything before it is on the disk. Whoever waits leaves a waker beside the place it
//! waits for. After a sync the writer takes out those it has reached, in one go, and wakes them when it has let
//! go of the lock.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// See the [module](self).
pub(super) struct Durable {
    /// The lsn after the last durable record. Written by the writer alone.
    tail: AtomicU64,
    /// It will not move any more.
    stopped: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By number, smallest first.
    wakers: Vec<Waiter>,
    next_number: u64,
}

struct Waiter {
    number: u64,
    last: u64,
    waker: Waker,
}

impl Durable {
    pub(super) fn new(tail: u64) -> Self {
        Self {
            tail: AtomicU64::new(tail),
            stopped: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// The lsn after the last durable record.
    pub(super) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Everything before `tail` is durable: tells those who wait for it. `wakers` is empty, before and after.
    pub(super) fn advance(&self, tail: u64, wakers: &mut Vec<Waker>) {
        self.tail.store(tail, Ordering::Release);
        // Who comes for the lock after this has seen the new tail.
        let reached = |waiter: &mut Waiter| waiter.last < tail;
        wakers.extend(
            self.lock()
                .wakers
                .extract_if(.., reached)
                .map(|waiter| waiter.waker),
        );
        wakers.drain(..).for_each(Waker::wake);
    }

    /// Nothing more becomes durable: tells everybody.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut self.lock().wakers);
        wakers.into_iter().for_each(|waiter| waiter.waker.wake());
    }

    /// Waits until the record `last` is durable: true; or never will be: false.
    pub(super) fn reached(&self, last: u64) -> Reached<'_> {
        Reached {
            durable: self,
            last,
            number: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, last: u64) -> Option<bool> {
        // In this order: what was durable before the stop is told so.
        let stopped = self.stopped.load(Ordering::Acquire);
        if self.tail() > last {
            return Some(true);
        }
        stopped.then_some(false)
    }
}

/// See [`Durable::reached`].
pub(super) struct Reached<'a> {
    durable: &'a Durable,
    last: u64,
    /// The number of its waker, once it has left one.
    number: Option<u64>,
}

impl Future for Reached<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let (durable, last) = (self.durable, self.last);
        if let Some(answer) = durable.answer(last) {
            self.number = None;
            return Poll::Ready(answer);
        }
        let waker = context.waker().clone();
        let mut waiting = durable.lock();
        if let Some(answer) = durable.answer(last) {
            drop(waiting);
            self.number = None;
            return Poll::Ready(answer);
        }
        let number = *self.number.get_or_insert(waiting.next_number);
        if number == waiting.next_number {
            waiting.next_number += 1;
            waiting.wakers.push(Waiter {
                number,
                last,
                waker,
            });
        } else if let Some(waiter) = waiting.waiter(number) {
            waiter.waker = waker;
        }
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut waiting = self.durable.lock();
            if let Ok(at) = waiting.position(number) {
                waiting.wakers.remove(at);
            }
        }
    }
}

impl Waiting {
    fn position(&self, number: u64) -> Result<usize, usize> {
        self.wakers
            .binary_search_by_key(&number, |waiter| waiter.number)
    }

    fn waiter(&mut self, number: u64) -> Option<&mut Waiter> {
        let at = self.position(number).ok()?;
        self.wakers.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicU64);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Bell {
        fn rung(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll(reached: &mut Reached<'_>, bell: &Arc<Bell>) -> Poll<bool> {
        let waker = Waker::from(Arc::clone(bell));
        Pin::new(reached).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn wakes_those_who_are_reached_and_nobody_else() {
        let durable = Durable::new(1);
        let bells: Vec<Arc<Bell>> = (0..5).map(|_| Arc::default()).collect();
        // Not in the order of their places.
        let mut waits: Vec<_> = [3, 1, 5, 2, 4].map(|last| durable.reached(last)).into();
        for (wait, bell) in waits.iter_mut().zip(&bells) {
            assert_eq!(poll(wait, bell), Poll::Pending);
        }
        durable.advance(3, &mut Vec::new());
        let rung: Vec<u64> = bells.iter().map(|bell| bell.rung()).collect();
        assert_eq!(rung, [0, 1, 0, 1, 0]);
        assert_eq!(poll(&mut waits[1], &bells[1]), Poll::Ready(true));
        // Polled by another task meanwhile: that one is woken.
        let other = Arc::default();
        assert_eq!(poll(&mut waits[0], &other), Poll::Pending);
        drop(waits.remove(4));
        durable.stop();
        assert_eq!(poll(&mut waits[0], &other), Poll::Ready(false));
        assert_eq!((bells[0].rung(), other.rung()), (0, 1));
        assert_eq!(bells[4].rung(), 0, "it was dropped");
        assert!(durable.lock().wakers.is_empty());
        assert_eq!(poll(&mut durable.reached(2), &other), Poll::Ready(true));
    }
}
