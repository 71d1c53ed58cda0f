//! Flushers: what each of them claims, what the store makes of it, and what is said of that to the cache.

use tidegate_core::Version;
use tidegate_core::port::{Claimed, Flushed, Guard, Known, Outcome, Timestamp};

use super::{Cache, LATE, LIFE, Row, Shown, State, Step, Variant, key};

/// A write of a flush.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Flush {
    version: Version,
    base: Option<Version>,
    deleted: bool,
    /// The generation in which it was claimed.
    generation: u64,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Flusher {
    Idle,
    Claimed(Flush),
    /// What is to be said of it.
    Ended(Version, End),
}

/// [`Flushed`], as far as it is used here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum End {
    Stored,
    Again,
    Over(Version),
    Dropped,
}

fn is_own(version: Version) -> bool {
    version.raw().is_multiple_of(2)
}

/// Applies a write, and tells what is to be said of it.
fn apply(row: &mut Row, variant: &Variant, flush: Flush, opened: u64) -> (End, &'static str) {
    if variant.deadline && flush.generation < opened {
        return (End::Again, "too late");
    }
    let mut flush = flush;
    // What the layer does with a conflict is another attempt at most.
    for _ in 0..2 {
        let known = Known {
            live: row.live,
            newest: row.newest,
            once: Version::NONE,
        };
        let guard = Guard::Flush {
            base: flush.base,
            version: flush.version,
        };
        match guard.admit(known) {
            Ok(_) => {}
            Err(Outcome::Superseded) if variant.guarded => return (End::Stored, "is there"),
            Err(Outcome::Conflict { newest }) if variant.guarded => {
                if is_own(newest) && newest > flush.version {
                    return (End::Dropped, "is older");
                }
                if !is_own(newest) && !variant.cache_wins {
                    return (End::Dropped, "makes way");
                }
                if newest > flush.version {
                    return (End::Over(newest), "is to go over");
                }
                flush.base = Some(newest);
                continue;
            }
            Err(_) => {}
        }
        row.live = (!flush.deleted).then_some(flush.version);
        row.newest = match (flush.deleted, variant.remembers) {
            (true, false) => Version::NONE,
            _ => flush.version,
        };
        return (End::Stored, "is written");
    }
    (End::Again, "changes all the time")
}

impl State {
    pub(super) fn flusher_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(Step, Self)>) {
        let mut state = self.clone();
        match &self.flushers[i] {
            Flusher::Idle => {
                let may = self.rounds[i] > 0 && self.is_current();
                if !may || self.cache.entry.claimable(LATE).is_none() {
                    return;
                }
                state.rounds[i] -= 1;
                let Some(claimed) = state.cache.entry.claim(&key(), LATE) else {
                    return;
                };
                let Claimed { held, base, .. } = claimed;
                let version = held.version;
                state.flushers[i] = Flusher::Claimed(Flush {
                    version,
                    base,
                    deleted: held.value.is_none(),
                    generation: self.cache.shard.generation,
                });
                if variant.clean_once_claimed {
                    let Cache { entry, shard } = &mut state.cache;
                    entry.settle(shard, version, &Flushed::Stored(LIFE));
                }
                next.push((Step::Claims(i, Shown(version)), state));
            }
            Flusher::Claimed(flush) => {
                let (end, what) = apply(&mut state.row, variant, *flush, self.opened());
                state.flushers[i] = Flusher::Ended(flush.version, end);
                next.push((Step::Applies(i, what), state));
                if self.crashes > 0 {
                    next.push((Step::Dies(i), self.without(variant, i)));
                    let mut state = self.without(variant, i);
                    state.late = Some(*flush);
                    next.push((Step::LosesItsAnswer(i), state));
                }
            }
            Flusher::Ended(version, end) => {
                if self.is_current() {
                    let flushed = match *end {
                        End::Stored => Flushed::Stored(LIFE),
                        End::Again => Flushed::Again(Timestamp::default()),
                        End::Over(row) => Flushed::Over(row),
                        End::Dropped => Flushed::Dropped,
                    };
                    let Cache { entry, shard } = &mut state.cache;
                    entry.settle(shard, *version, &flushed);
                    state.flushers[i] = Flusher::Idle;
                    next.push((Step::Settles(i), state));
                }
                if self.crashes > 0 {
                    next.push((Step::Dies(i), self.without(variant, i)));
                }
            }
        }
    }

    /// A flusher ended without settling. What it claimed can be claimed again.
    fn without(&self, variant: &Variant, i: usize) -> Self {
        let mut state = self.clone();
        state.crashes -= 1;
        state.flushers[i] = Flusher::Idle;
        state.rounds[1 - i] = state.rounds[1 - i].max(variant.rounds);
        state
    }

    pub(super) fn late_steps(&self, variant: &Variant, next: &mut Vec<(Step, Self)>) {
        let Some(flush) = self.late else {
            return;
        };
        let mut state = self.clone();
        state.late = None;
        next.push((Step::LateFlushNeverComes, state.clone()));
        let (_, what) = apply(&mut state.row, variant, flush, self.opened());
        next.push((Step::LateFlush(what), state));
    }
}
