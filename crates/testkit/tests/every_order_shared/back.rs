//! One key that is written back: puts, two flushers, a reader, with a flusher that dies or loses its answer, evictions, a
//! stranger, a failover to a replica that lags, and a writer who goes through the store.
//!
//! The key and its shard are the machine itself, and the store decides by its own guard. A claim is never waited for:
//! whoever flushes may claim what another claimed, as if that claim had run out. That a batch with a deadline is over
//! once a shard is open again is shown beside this ([`through`](super::through)); here it is taken for granted.

use std::fmt;
use std::time::Duration;

use tidegate_core::memory::machine::{SharedEntry, SharedShard, SharedState};
use tidegate_core::port::{
    Asked, Expected, Fill, Got, Held, Life, Put, PutOutcome, SharedKey, Timestamp, Token, Value,
};
use tidegate_core::{Mutation, Version};

use super::explore::Model;

mod flushers;
mod others;

use flushers::{Flush, Flusher};
use others::Other;

pub(crate) const LOST: &str = "an acknowledged write is lost";
pub(crate) const RESURRECTED: &str = "a deleted row is back, or its delete lost";
pub(crate) const STALE: &str = "a reader is served something older than what was acknowledged";
pub(crate) const STALE_FOR_EVER: &str =
    "the cache keeps what the store does not have, and nobody is at it any more";

/// What has to be possible.
pub(crate) const SERVED: &str = "all writes are in the store and served";
/// The same after a failover.
pub(crate) const SERVED_AFTER: &str = "all writes are in the store and served in a new generation";

const FIRST_SERVER: u64 = 1;
const READER: u64 = 20;
/// Past the end of every claim.
const LATE: Timestamp = Timestamp::from_millis(1000);
const LIFE: Life = Life {
    fresh_until: LATE,
    kept_for: Duration::from_secs(1),
};

/// What is explored, and which rules hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Rules of the machine.
    pub(crate) off: &'static [Mutation],
    /// A flush is guarded by what its entry was made over.
    pub(crate) guarded: bool,
    /// A flush that comes after a shard was opened again is too late.
    pub(crate) deadline: bool,
    /// A put may be made over nobody knows what.
    pub(crate) blind: bool,
    /// The store remembers the versions of deleted keys.
    pub(crate) remembers: bool,
    /// What is claimed is settled at once.
    pub(crate) clean_once_claimed: bool,
    pub(crate) puts: usize,
    /// How often each flusher claims.
    pub(crate) rounds: u8,
    /// The second put is a delete.
    pub(crate) deletes: bool,
    /// A flusher may die or lose its answer, once.
    pub(crate) crashes: bool,
    pub(crate) failovers: u8,
    /// Somebody writes a row behind the cache, which is told later.
    pub(crate) stranger: bool,
    /// The entry of a conflict goes over the row, or makes way for it.
    pub(crate) cache_wins: bool,
    /// Somebody writes through the store, with a mark, and may die.
    pub(crate) through: bool,
    pub(crate) loads: u8,
    pub(crate) shows: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Writer {
    Idle,
    /// In the cache, and not yet acknowledged by the server that took it.
    Dirty(Version, u64),
    Acknowledged(Version),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reader {
    Idle,
    Leased,
    Loaded(Version, bool),
}

/// The row, and what is remembered of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Row {
    live: Option<Version>,
    newest: Version,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Cache {
    entry: SharedEntry,
    shard: SharedShard,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    cache: Cache,
    server: u64,
    replica: Option<Cache>,
    failovers: u8,
    row: Row,
    writers: [Writer; 2],
    flushers: [Flusher; 2],
    rounds: [u8; 2],
    crashes: u8,
    /// Left behind by a flusher that lost its answer.
    late: Option<Flush>,
    stranger: Other,
    through: Other,
    reader: (Reader, u8),
    /// The newest that anybody was told is written.
    told: Version,
}

/// A version as people read it.
#[derive(Clone, Copy)]
pub(crate) struct Shown(Version);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the numbers are shown, not looked at")]
pub(crate) enum Step {
    Puts(usize, Shown),
    IsAcknowledged(usize),
    IsUnknown(usize),
    Claims(usize, Shown),
    Applies(usize, &'static str),
    Settles(usize),
    Dies(usize),
    LosesItsAnswer(usize),
    LateFlush(&'static str),
    LateFlushNeverComes,
    StrangerWrites(Shown),
    StrangerIsTold,
    ThroughMarks,
    ThroughCommits(Shown),
    ThroughReleases,
    ThroughDies,
    IsSwept,
    Leases,
    Loads,
    Fills,
    Evicts,
    ReplicaFollows,
    FailsOver,
    RaisesGeneration,
    Opens,
}

fn key() -> SharedKey {
    SharedKey {
        class: "c".into(),
        key: "k".into(),
    }
}

/// A present key has a value without bytes: its version tells who wrote it.
fn held(version: Version, deleted: bool) -> Held {
    let value = Value {
        bytes: bytes::Bytes::new(),
        expires_at: None,
    };
    Held {
        version,
        value: (!deleted).then_some(value),
    }
}

impl State {
    pub(crate) fn first(variant: &Variant) -> Self {
        let shard = variant
            .off
            .iter()
            .fold(SharedShard::new(), |shard, rule| shard.without(*rule));
        let mut cache = Cache {
            entry: SharedEntry::default(),
            shard,
        };
        cache.shard.open_generation(1, FIRST_SERVER);
        cache.shard.open(1);
        let first = Version::from_raw(2);
        cache
            .entry
            .ask(&cache.shard, Token(1), Timestamp::default());
        let fill = Fill {
            key: key(),
            token: Token(1),
            held: held(first, false),
            life: LIFE,
        };
        cache.entry.fill(&cache.shard, &fill);
        let mut writers = [Writer::Acknowledged(Version::NONE); 2];
        writers[..variant.puts].fill(Writer::Idle);
        let other = |is_there| if is_there { Other::Idle } else { Other::Done };
        Self {
            replica: (variant.failovers > 0).then(|| cache.clone()),
            cache,
            server: FIRST_SERVER,
            failovers: variant.failovers,
            row: Row {
                live: Some(first),
                newest: first,
            },
            writers,
            flushers: [Flusher::Idle, Flusher::Idle],
            rounds: [variant.rounds; 2],
            crashes: u8::from(variant.crashes),
            late: None,
            stranger: other(variant.stranger),
            through: other(variant.through),
            reader: (Reader::Idle, variant.loads),
            told: first,
        }
    }

    fn is_current(&self) -> bool {
        self.cache.shard.is_current(self.server)
    }

    /// The generation of the shard, once it is open.
    fn opened(&self) -> u64 {
        match self.cache.shard.open {
            true => self.cache.shard.generation,
            false => 0,
        }
    }

    /// The version that the cache serves, and whether the store has it.
    fn served(&self) -> Option<(Version, bool)> {
        match self.cache.entry.get(&self.cache.shard) {
            Got::Clean { held, .. } => Some((held.version, true)),
            Got::Dirty(held) | Got::Parked(held) => Some((held.version, false)),
            Got::Nothing => None,
        }
    }

    fn writer_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(Step, Self)>) {
        let mut state = self.clone();
        match self.writers[i] {
            Writer::Idle if self.is_current() => {
                if !variant.blind && self.served().is_none() {
                    return;
                }
                let deleted = variant.deletes && i == 1;
                let put = Put {
                    key: key(),
                    value: held(Version::NONE, deleted).value,
                    expected: Expected::Any,
                    now: Timestamp::default(),
                    shard_bytes_max: u64::MAX,
                };
                let Cache { entry, shard } = &mut state.cache;
                let PutOutcome::Dirty { version, .. } = entry.put(shard, &put, 0) else {
                    return;
                };
                state.writers[i] = Writer::Dirty(version, self.server);
                next.push((Step::Puts(i, Shown(version)), state));
            }
            // With a replica a write is acknowledged when that has it too.
            Writer::Dirty(_, server) if server != self.server => {
                state.writers[i] = Writer::Acknowledged(Version::NONE);
                next.push((Step::IsUnknown(i), state));
            }
            Writer::Dirty(version, _) if self.is_kept(version) => {
                state.writers[i] = Writer::Acknowledged(version);
                state.told = state.told.max(version);
                next.push((Step::IsAcknowledged(i), state));
            }
            _ => {}
        }
    }

    fn is_kept(&self, version: Version) -> bool {
        let Some(replica) = &self.replica else {
            return true;
        };
        let dirty = replica.entry.dirty();
        *replica == self.cache || dirty.is_some_and(|dirty| dirty.held.version >= version)
    }

    fn reader_steps(&self, next: &mut Vec<(Step, Self)>) {
        let (reader, left) = self.reader;
        let token = Token(READER + u64::from(left));
        let mut state = self.clone();
        let Cache { entry, shard } = &mut state.cache;
        let step = match reader {
            Reader::Idle if left > 0 && self.is_current() => {
                let asked = entry.ask(shard, token, Timestamp::default());
                if !matches!(asked, Asked::Lease(_)) {
                    return;
                }
                state.reader.0 = Reader::Leased;
                Step::Leases
            }
            Reader::Leased => {
                let version = self.row.live.unwrap_or(self.row.newest);
                state.reader.0 = Reader::Loaded(version, self.row.live.is_none());
                Step::Loads
            }
            Reader::Loaded(version, deleted) if self.is_current() => {
                let fill = Fill {
                    key: key(),
                    token,
                    held: held(version, deleted),
                    life: LIFE,
                };
                entry.fill(shard, &fill);
                state.reader = (Reader::Idle, left - 1);
                Step::Fills
            }
            _ => return,
        };
        next.push((step, state));
    }

    fn cache_steps(&self, next: &mut Vec<(Step, Self)>) {
        let mut state = self.clone();
        if state.cache.entry.evict(&self.cache.shard) {
            next.push((Step::Evicts, state));
        }
        if let Some(replica) = &self.replica {
            if *replica != self.cache {
                let mut state = self.clone();
                state.replica = Some(self.cache.clone());
                next.push((Step::ReplicaFollows, state));
            }
            let mut state = self.clone();
            state.cache = replica.clone();
            state.server += 1;
            state.failovers -= 1;
            if state.failovers == 0 {
                state.replica = None;
            }
            next.push((Step::FailsOver, state));
        }
        let shard = &self.cache.shard;
        if !self.is_current() {
            let mut state = self.clone();
            state
                .cache
                .shard
                .open_generation(shard.generation + 1, self.server);
            next.push((Step::RaisesGeneration, state));
        } else if !shard.open {
            let mut state = self.clone();
            state.cache.shard.open(shard.generation);
            next.push((Step::Opens, state));
        }
    }

    /// States of which the same follows are made the same one: when a write was made is of no matter here, and
    /// flushers that do the same are told apart by nothing but their names.
    fn tidy(&mut self, variant: &Variant) {
        let caches = std::iter::once(&mut self.cache).chain(&mut self.replica);
        for cache in caches {
            if let SharedState::Dirty(dirty) = &mut cache.entry.state {
                dirty.claimed = None;
            }
        }
        let [one, other] = &self.flushers;
        if variant.shows.is_empty() && (other, self.rounds[1]) < (one, self.rounds[0]) {
            self.flushers.reverse();
            self.rounds.reverse();
        }
    }

    fn is_quiet(&self) -> bool {
        self.writers
            .iter()
            .all(|writer| matches!(writer, Writer::Acknowledged(_)))
            && self
                .flushers
                .iter()
                .all(|flusher| *flusher == Flusher::Idle)
            && self.late.is_none()
            && [self.stranger, self.through]
                .iter()
                .all(|other| matches!(other, Other::Done))
            && self.reader.0 == Reader::Idle
            && self.is_current()
            && self.cache.shard.open
            && self.cache.entry.dirty().is_none()
    }
}

impl Model for State {
    type Variant = Variant;
    type Step = Step;

    fn next(&self, variant: &Variant, next: &mut Vec<(Step, Self)>) {
        for i in 0..2 {
            self.writer_steps(variant, i, next);
            self.flusher_steps(variant, i, next);
        }
        self.late_steps(variant, next);
        self.stranger_steps(next);
        self.through_steps(next);
        self.reader_steps(next);
        self.cache_steps(next);
        for (_, state) in next {
            state.tidy(variant);
        }
    }

    fn violation(&self, variant: &Variant) -> Option<&'static str> {
        let quiet = self.is_quiet();
        let served = self.served();
        if quiet && served.is_some_and(|(version, _)| version != self.row.newest) {
            return Some(STALE_FOR_EVER);
        }
        // Where others write, the class decides whose write stays.
        if variant.stranger {
            return None;
        }
        if quiet && self.row.newest < self.told {
            let is_deleted = variant.deletes && self.writers[1] == Writer::Acknowledged(self.told);
            return Some(if is_deleted { RESURRECTED } else { LOST });
        }
        // Who finds nothing reads the store; who is told to wait for a generation is not served at all.
        let read = served.map_or(self.row.newest, |(version, _)| version);
        (self.is_current() && read < self.told).then_some(STALE)
    }

    fn milestone(&self) -> Option<&'static str> {
        let (version, is_clean) = self.served()?;
        if !is_clean || version != self.row.newest || !self.is_current() {
            return None;
        }
        let both = self.writers.iter().all(|writer| match writer {
            Writer::Acknowledged(version) => *version <= self.row.newest,
            _ => false,
        });
        both.then_some(match self.cache.shard.generation {
            1 => SERVED,
            _ => SERVED_AFTER,
        })
    }
}
