//! Writers who do not write into the cache: a stranger who knows nothing of it, and one who goes through the store with a
//! mark.

use tidegate_core::Version;
use tidegate_core::memory::machine::SharedState;
use tidegate_core::port::{Ended, Mark, Marked, StoreTime, Token};

use super::{Cache, LIFE, Shown, State, Step, held, key};

const THROUGH: Token = Token(7);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Other {
    Idle,
    /// The one who goes through the store has its mark, of a generation.
    Marked(u64),
    /// In the store, and the cache was not told.
    Stored(Version),
    Done,
}

impl State {
    pub(super) fn stranger_steps(&self, next: &mut Vec<(Step, Self)>) {
        let mut state = self.clone();
        match self.stranger {
            Other::Idle => {
                let version = self.row.newest.raised_outside();
                (state.row.live, state.row.newest) = (Some(version), version);
                state.stranger = Other::Stored(version);
                next.push((Step::StrangerWrites(Shown(version)), state));
            }
            Other::Stored(version) if self.is_current() => {
                let Cache { entry, shard } = &mut state.cache;
                entry.invalidate(shard, version);
                state.stranger = Other::Done;
                next.push((Step::StrangerIsTold, state));
            }
            _ => {}
        }
    }

    pub(super) fn through_steps(&self, next: &mut Vec<(Step, Self)>) {
        let mut state = self.clone();
        match self.through {
            Other::Idle if self.is_current() => {
                let mark = Mark {
                    key: key(),
                    token: THROUGH,
                    commit_by: StoreTime::default(),
                };
                let Cache { entry, shard } = &mut state.cache;
                if entry.mark(shard, &mark) == Marked::Dirty {
                    return;
                }
                state.through = Other::Marked(self.cache.shard.generation);
                next.push((Step::ThroughMarks, state));
            }
            Other::Marked(generation) => {
                if generation < self.opened() {
                    // It is too late to commit.
                    state.through = Other::Done;
                    next.push((Step::ThroughDies, state));
                    return;
                }
                let newest = self.row.newest.raw().max(Version::compose(1, 0).raw());
                let version = Version::from_raw((newest | 1) + 1);
                (state.row.live, state.row.newest) = (Some(version), version);
                let mut dead = state.clone();
                dead.through = Other::Done;
                next.push((Step::ThroughDies, dead));
                state.through = Other::Stored(version);
                state.told = state.told.max(version);
                next.push((Step::ThroughCommits(Shown(version)), state));
            }
            Other::Stored(version) if self.is_current() => {
                let Cache { entry, shard } = &mut state.cache;
                let ended = Ended::Committed {
                    held: held(version, false),
                    life: LIFE,
                };
                entry.release(shard, THROUGH, &ended);
                state.through = Other::Done;
                next.push((Step::ThroughReleases, state));
            }
            _ => {}
        }
        let is_left = matches!(&self.cache.entry.state, SharedState::Quarantine(_));
        if self.through == Other::Done && is_left && self.is_current() {
            let mut state = self.clone();
            state.cache.entry.sweep(&self.cache.shard, THROUGH);
            next.push((Step::IsSwept, state));
        }
    }
}
