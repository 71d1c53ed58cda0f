//! How many batches are on their way to the store at once, and how large they are.
//!
//! Both follow what the store can take: additive increase while commits are quick, multiplicative decrease
//! when they become slow or fail. (D. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for
//! Congestion Avoidance in Computer Networks", 1989; that slowness is measured against the shortest time seen
//! is from L. Brakmo and L. Peterson, "TCP Vegas", 1995.)

use std::time::Duration;

/// A commit may take so long, or so many times the usual, before it counts as slow.
const SLOW: Duration = Duration::from_millis(100);
const SLOW_FACTOR: u32 = 4;
/// What a slow commit, and a failed one, leaves of the window.
const AFTER_SLOW: f64 = 0.7;
const AFTER_FAILURE: f64 = 0.5;
/// Batches are not made smaller than this for being slow.
const BATCH_MIN: usize = 16;
/// A full batch that was quick makes the next larger by this share of the largest.
const BATCH_STEPS: f64 = 16.0;
/// The shortest time seen is forgotten at this rate, so that a store that has become slower for good is not
/// held against its youth.
const FORGET: u32 = 64;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Window {
    rounds: f64,
    rounds_max: f64,
    batch: f64,
    batch_max: usize,
    /// About the shortest time a commit took.
    floor: Option<Duration>,
    /// When the window was last made smaller: what was sent before is no reason to do it again.
    cut_at: Duration,
}

/// A batch that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// When, in elapsed time.
    pub(super) at: Duration,
    /// It was as large as the window let it be.
    pub(super) full: bool,
    /// No other could have been sent beside it.
    pub(super) last: bool,
}

impl Window {
    /// A window that begins with `usual` rounds and the largest batches.
    pub(super) fn new(usual: usize, batch_max: usize) -> Self {
        let usual = usual.clamp(1, 1024) as f64;
        Self {
            rounds: usual,
            rounds_max: usual * 2.0,
            batch: batch_max.max(1) as f64,
            batch_max: batch_max.max(1),
            floor: None,
            cut_at: Duration::ZERO,
        }
    }

    /// How many batches may be on their way.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and some thousands"
    )]
    pub(super) fn rounds(&self) -> usize {
        self.rounds as usize
    }

    /// How large they may be.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the store's largest batch"
    )]
    pub(super) fn batch(&self) -> usize {
        self.batch as usize
    }

    /// How long a commit may be out before others need not wait for it.
    pub(super) fn patience(&self) -> Duration {
        self.floor
            .map_or(SLOW, |floor| floor.saturating_mul(SLOW_FACTOR))
            .clamp(Duration::from_millis(2), Duration::from_secs(1))
    }

    /// The store answered.
    pub(super) fn answered(&mut self, sent: Sent, now: Duration) {
        let took = now.saturating_sub(sent.at);
        let floor = match self.floor {
            Some(floor) if took > floor => floor + (took - floor) / FORGET,
            _ => took,
        };
        self.floor = Some(floor);
        if took > floor.saturating_mul(SLOW_FACTOR).max(SLOW) {
            self.cut(sent, now, AFTER_SLOW);
            return;
        }
        if sent.last {
            self.rounds = (self.rounds + 1.0 / self.rounds).min(self.rounds_max);
        }
        if sent.full {
            let max = self.batch_max as f64;
            self.batch = (self.batch + (max / BATCH_STEPS).max(1.0)).min(max);
        }
    }

    /// The store did not answer, or asked to be tried again.
    pub(super) fn failed(&mut self, sent: Sent, now: Duration) {
        self.cut(sent, now, AFTER_FAILURE);
    }

    fn cut(&mut self, sent: Sent, now: Duration, share: f64) {
        if sent.at < self.cut_at {
            return;
        }
        self.cut_at = now;
        self.rounds = (self.rounds * share).max(1.0);
        let least = BATCH_MIN.min(self.batch_max) as f64;
        self.batch = (self.batch * share).max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A store that takes so long for a transaction and for each row.
    struct Store {
        window: Window,
        now: Duration,
        rows: usize,
    }

    impl Store {
        fn new() -> Self {
            // A small batch comes first, as it mostly does.
            Self {
                window: Window::new(4, 1000),
                now: ms(1),
                rows: 1,
            }
        }

        /// Sends full batches one after the other while the window is full.
        fn run(&mut self, batches: usize, fixed: Duration, per_row: Duration) {
            for _ in 0..batches {
                let sent = Sent {
                    at: self.now,
                    full: self.rows > 1,
                    last: true,
                };
                self.now += fixed + per_row * u32::try_from(self.rows).unwrap();
                self.window.answered(sent, self.now);
                self.rows = self.window.batch();
            }
        }

        fn size(&self) -> (usize, usize) {
            (self.window.rounds(), self.window.batch())
        }
    }

    const QUICK: Duration = Duration::from_micros(50);

    #[test]
    fn a_quick_store_gets_many_large_batches() {
        let mut store = Store::new();
        store.run(500, ms(2), QUICK);
        assert_eq!(store.size(), (8, 1000));
    }

    #[test]
    fn a_store_that_is_far_away_gets_large_batches_all_the_same() {
        let mut store = Store::new();
        store.run(500, ms(300), QUICK);
        assert_eq!(store.size(), (8, 1000));
    }

    #[test]
    fn a_store_that_becomes_slow_gets_fewer_and_smaller_ones_and_is_forgiven_in_time() {
        let mut store = Store::new();
        store.run(500, ms(2), QUICK);
        let slow = QUICK * 20;
        store.run(10, ms(2), slow);
        let (rounds, batch) = store.size();
        assert!(rounds <= 4 && batch <= 500, "{rounds} of {batch}");
        store.run(1000, ms(2), slow);
        assert_eq!(store.size(), (8, 1000), "it is as quick as it can be");
    }

    #[test]
    fn failures_halve_it_once_for_what_was_sent_together_and_never_to_nothing() {
        let mut window = Window::new(8, 1000);
        let sent = Sent {
            at: ms(1),
            full: true,
            last: true,
        };
        for _ in 0..8 {
            window.failed(sent, ms(2));
        }
        assert_eq!((window.rounds(), window.batch()), (4, 500));
        for n in 3..100 {
            let sent = Sent { at: ms(n), ..sent };
            window.failed(sent, ms(n));
        }
        assert_eq!((window.rounds(), window.batch()), (1, BATCH_MIN));
        for n in 100..400 {
            let sent = Sent { at: ms(n), ..sent };
            window.answered(sent, ms(n + 1));
        }
        assert_eq!((window.rounds(), window.batch()), (16, 1000), "and back");
    }
}
