//! Writers: what the client of each does, what the store makes of it, and what the cache is told at the end.

use tidegate_core::port::{Ended, Mark};

use super::{
    At, Cache, LIFE, State, Step, Variant, Write, held, key, store_time, version, writer_token,
};

impl State {
    pub(super) fn writer_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(Step, Self)>) {
        let writer = self.writers[i];
        let stranger = Self::is_stranger(variant, i);
        // What the store does, whether the client lives or not.
        match writer.at {
            At::Sent if variant.guard && !stranger && self.clock > writer.commit_by => {
                let mut state = self.clone();
                state.writers[i].at = At::Refused;
                state.unlock();
                next.push((Step::StoreRefuses(i), state));
            }
            At::Sent => {
                let mut state = self.clone();
                state.writers[i].at = At::Passed;
                next.push((Step::StorePasses(i), state));
            }
            At::Passed => {
                let mut state = self.clone();
                state.writers[i].at = At::Committed;
                state.row = writer.version;
                state.unlock();
                next.push((Step::StoreCommits(i, writer.version), state));
            }
            _ => {}
        }
        if writer.dead {
            if matches!(writer.at, At::Sent | At::Passed) {
                let mut state = self.clone();
                state.writers[i].at = At::Refused;
                state.unlock();
                next.push((Step::StoreAborts(i), state));
            }
            return;
        }
        self.client_steps(variant, i, next);
        let is_in_the_middle = !matches!(writer.at, At::Start | At::Done);
        let nobody_died = self.writers.iter().all(|writer| !writer.dead);
        if variant.crashes && !stranger && is_in_the_middle && nobody_died {
            let mut state = self.clone();
            state.writers[i].dead = true;
            if matches!(writer.at, At::Stated | At::Ready) {
                state.unlock();
            }
            if matches!(writer.at, At::Marked | At::Stated | At::Ready) {
                state.writers[i].at = At::Refused;
            }
            next.push((Step::Dies(i), state));
        }
    }

    fn client_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(Step, Self)>) {
        let writer = self.writers[i];
        let marks = variant.write == Write::Marked && !Self::is_stranger(variant, i);
        let may_mark = matches!(writer.at, At::Start | At::Stated) && marks && self.is_current();
        if may_mark {
            let mut state = self.clone();
            let writer = &mut state.writers[i];
            if writer.at == At::Start {
                writer.commit_by = self.clock;
            }
            writer.at = match writer.at {
                At::Start => At::Marked,
                _ => At::Ready,
            };
            let mark = Mark {
                key: key(),
                token: writer_token(i),
                commit_by: store_time(writer.commit_by),
            };
            state.cache.entry.mark(&self.cache.shard, &mark);
            next.push((Step::Marks(i), state));
        }
        if matches!(writer.at, At::Start | At::Marked) && !self.locked {
            let mut state = self.clone();
            state.locked = true;
            let number = state.next_number;
            state.next_number += 1;
            let writer = &mut state.writers[i];
            if writer.at == At::Start {
                writer.commit_by = self.clock;
            }
            writer.at = match writer.at {
                At::Start if marks => At::Stated,
                _ => At::Ready,
            };
            (writer.number, writer.version) = (number, self.row + 1);
            next.push((Step::States(i, self.row + 1), state));
        }
        let mut state = self.clone();
        let step = match writer.at {
            At::Ready => {
                let mut back = self.clone();
                back.writers[i].at = At::Refused;
                back.unlock();
                next.push((Step::RollsBack(i), back));
                state.writers[i].at = At::Sent;
                Step::SendsCommit(i)
            }
            At::Committed => {
                state.writers[i].at = At::Told;
                if !Self::is_stranger(variant, i) {
                    state.known = state.known.max(writer.version);
                }
                Step::IsTold(i, writer.version)
            }
            At::Told | At::Refused if self.is_current() => {
                state.writers[i].at = At::Done;
                self.ends(variant, i, &mut state.cache)
            }
            _ => return,
        };
        next.push((step, state));
    }

    /// What the cache is told of a write that ended.
    fn ends(&self, variant: &Variant, i: usize, cache: &mut Cache) -> Step {
        let writer = self.writers[i];
        let committed = writer.at == At::Told;
        let Cache { entry, shard } = cache;
        if Self::is_stranger(variant, i) {
            if committed {
                entry.invalidate(shard, version(writer.version));
            }
            return Step::IsInvalidated(i, writer.version);
        }
        if variant.write == Write::ThenDelete {
            if committed {
                entry.evict(shard);
            }
            return Step::Deletes(i);
        }
        let ended = match committed {
            true => Ended::Committed {
                held: held(writer.version),
                life: LIFE,
            },
            false => Ended::Aborted,
        };
        entry.release(shard, writer_token(i), &ended);
        Step::Releases(i)
    }
}
