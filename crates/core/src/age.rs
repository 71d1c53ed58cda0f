//! How long the oldest dirty entry of a class has been waiting, looked at now and then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::layer::Layer;

/// The least and the most time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// What the last look at a class found.
#[derive(Default)]
pub(crate) struct AgeWatch {
    /// When to look again, in microseconds of elapsed time.
    next_look: AtomicU64,
    too_old: AtomicBool,
}

/// True if the oldest dirty entry of the class is older than its `dirty_age_max`. As of a moment ago: a look
/// takes the lock of every lane, and is not taken for every write.
pub(crate) fn is_too_old(layer: &Layer, class: usize) -> bool {
    let Some(age_max) = layer.class(class).dirty_age_max else {
        return false;
    };
    let watch = &layer.state(class).age;
    let now = layer.clock.elapsed();
    if micros(now) < watch.next_look.load(Ordering::Acquire) {
        return watch.too_old.load(Ordering::Acquire);
    }
    let again = now.saturating_add((age_max / 16).clamp(LOOK_MIN, LOOK_MAX));
    watch.next_look.store(micros(again), Ordering::Release);
    let too_old = oldest(layer, class).is_some_and(|since| now.saturating_sub(since) > age_max);
    watch.too_old.store(too_old, Ordering::Release);
    too_old
}

/// Since when the oldest entry of the class has been dirty, also one that is on its way to the store; dead
/// letters not counted.
fn oldest(layer: &Layer, class: usize) -> Option<Duration> {
    let lanes = layer.lanes.iter();
    lanes
        .filter_map(|lane| lane.lock().dirty.oldest_since(class))
        .min()
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
