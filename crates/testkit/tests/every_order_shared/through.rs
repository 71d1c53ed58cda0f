//! One key that writers write through the cache and readers load, with crashes, pauses, evictions, a failover to a
//! replica that lags, and a writer that knows nothing of the cache.
//!
//! The key and its shard are the machine itself, and so is the proof that a mark may be swept. Around them are a store
//! that locks rows and numbers transactions, and what each client does next. A client that is paused is one whose next
//! step comes late; every step may.
//!
//! A read that is answered by the cache changes nothing, so none is modelled: instead no state may serve what is older
//! than what a writer was told of or a reader has seen. Whoever finds nothing to serve reads the store, at any moment.

use tidegate_core::memory::machine::{SharedEntry, SharedShard, SharedState};
use tidegate_core::port::{
    Asked, Fill, Got, Held, Horizon, Life, Proof, SharedKey, StoreTime, Timestamp, Token,
};
use tidegate_core::{Mutation, Version};

use super::explore::Model;

mod tidy;
mod writers;

pub(crate) const STALE: &str = "the cache serves something older than what was told or seen";
pub(crate) const STALE_FOR_EVER: &str =
    "the cache keeps something stale, and nobody is at it any more";

/// What has to be possible.
pub(crate) const SERVED: &str = "something new is served";
/// The same after a failover.
pub(crate) const SERVED_AFTER: &str = "something new is served in a new generation";

const WRITERS_MAX: usize = 3;
const READERS_MAX: usize = 2;
/// So often the store's clock may step on.
const CLOCK_MAX: u8 = 2;
const FIRST_SERVER: u64 = 1;

/// When a mark that nobody released may be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sweep {
    /// By the proof.
    Proven,
    /// When the store's clock is past the deadline, whatever is under way.
    OneHorizon,
    /// At any time, as if it had a time to live.
    TimeToLive,
}

/// What a writer does to the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Write {
    /// Mark, commit, release.
    Marked,
    /// Commit, then delete the key from the cache.
    ThenDelete,
}

/// What is explored, and which rules hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Rules of the machine.
    pub(crate) off: &'static [Mutation],
    pub(crate) write: Write,
    /// A transaction that comes too late does not commit.
    pub(crate) guard: bool,
    pub(crate) sweep: Sweep,
    /// One writer may die.
    pub(crate) crashes: bool,
    /// What is clean or leased may be evicted at any time.
    pub(crate) evicts: bool,
    pub(crate) evicts_quarantine: bool,
    pub(crate) failovers: u8,
    /// It is noticed that another server answers.
    pub(crate) checks_server: bool,
    /// The last writer knows nothing of the cache; what it did is told later.
    pub(crate) stranger: bool,
    pub(crate) writers: usize,
    pub(crate) readers: usize,
    /// How often each reader loads.
    pub(crate) loads: u8,
    pub(crate) shows: &'static [&'static str],
}

/// Where a writer is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
enum At {
    #[default]
    Start,
    Marked,
    /// The statement is done, so the row is locked; the mark is not.
    Stated,
    Ready,
    /// The commit is sent, with its guard before it.
    Sent,
    /// It is decided that it commits.
    Passed,
    Committed,
    /// The client was told.
    Told,
    Refused,
    Done,
}

/// A [`Horizon`] in three bytes.
type Look = (u8, u8, u8);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
struct Writer {
    at: At,
    dead: bool,
    version: u8,
    number: u8,
    commit_by: u8,
    /// What was seen of the store first, by whoever wants to sweep its mark.
    look: Option<Look>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum Reader {
    #[default]
    Idle,
    /// May fill.
    Leased,
    /// With what it loaded.
    Loaded(u8),
}

/// The cache, as far as it is about this key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Cache {
    entry: SharedEntry,
    shard: SharedShard,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    cache: Cache,
    server: u64,
    /// What would take over.
    replica: Option<Cache>,
    failovers: u8,
    /// The last generation that was given out.
    generation: u8,
    /// The deadline of all marks of before the last generation, and what was seen of the store first after it.
    grace: Option<(u8, Option<Look>)>,
    clock: u8,
    row: u8,
    locked: bool,
    next_number: u8,
    writers: [Writer; WRITERS_MAX],
    readers: [(Reader, u8); READERS_MAX],
    /// The newest version that a writer was told of or a reader has seen.
    known: u8,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the numbers are shown, not looked at")]
pub(crate) enum Step {
    ClockSteps,
    Marks(usize),
    States(usize, u8),
    RollsBack(usize),
    SendsCommit(usize),
    StorePasses(usize),
    StoreRefuses(usize),
    StoreCommits(usize, u8),
    StoreAborts(usize),
    IsTold(usize, u8),
    Releases(usize),
    Deletes(usize),
    IsInvalidated(usize, u8),
    Dies(usize),
    SweeperLooks(usize),
    IsSwept(usize),
    Leases(usize),
    Loads(usize, u8),
    Fills(usize, u8),
    SomebodyReadsStore(u8),
    LeaseEnds,
    Evicts,
    ReplicaFollows,
    FailsOver,
    RaisesGeneration,
    OpenerLooks,
    Opens,
}

fn version(number: u8) -> Version {
    Version::from_raw(u64::from(number))
}

fn held(number: u8) -> Held {
    Held {
        version: version(number),
        value: None,
    }
}

const LIFE: Life = Life {
    fresh_until: Timestamp::from_millis(10),
    kept_for: std::time::Duration::from_secs(1),
};

fn store_time(clock: u8) -> StoreTime {
    StoreTime::from_micros(i64::from(clock))
}

fn writer_token(i: usize) -> Token {
    Token(100 + i as u64)
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
        let token = Token(1);
        cache.entry.ask(&cache.shard, token, Timestamp::default());
        cache.entry.fill(&cache.shard, &fill(token, 1));
        let mut writers = [Writer::default(); WRITERS_MAX];
        for writer in &mut writers[variant.writers..] {
            writer.at = At::Done;
        }
        let mut readers = [(Reader::Idle, variant.loads); READERS_MAX];
        for reader in &mut readers[variant.readers..] {
            reader.1 = 0;
        }
        Self {
            replica: (variant.failovers > 0).then(|| cache.clone()),
            cache,
            server: FIRST_SERVER,
            failovers: variant.failovers,
            generation: 1,
            grace: None,
            clock: 0,
            row: 1,
            locked: false,
            next_number: 1,
            writers,
            readers,
            known: 1,
        }
    }

    /// Whether the cache answers anything but that it needs a generation.
    fn is_current(&self) -> bool {
        self.cache.shard.is_current(self.server)
    }

    /// The version that the cache serves, if it serves any.
    fn served(&self) -> Option<u8> {
        if !self.is_current() {
            return None;
        }
        match self.cache.entry.get(&self.cache.shard) {
            Got::Clean { held, .. } => u8::try_from(held.version.raw()).ok(),
            _ => None,
        }
    }

    /// What the store tells of its clock and its transactions.
    fn look(&self) -> Look {
        let running = self
            .writers
            .iter()
            .filter(|writer| matches!(writer.at, At::Stated | At::Ready | At::Sent | At::Passed));
        let oldest = running.map(|writer| writer.number).min();
        (
            self.clock,
            oldest.unwrap_or(self.next_number),
            self.next_number,
        )
    }

    /// Whether two looks at the store prove that no batch of this deadline is under way.
    fn proves(variant: &Variant, deadline: u8, first: Option<Look>, now: Look) -> bool {
        let horizon = |(now, oldest, next): Look| Horizon {
            now: store_time(now),
            oldest: u64::from(oldest),
            next: u64::from(next),
        };
        match variant.sweep {
            Sweep::TimeToLive => true,
            Sweep::OneHorizon => now.0 > deadline,
            Sweep::Proven => {
                let mut proof = Proof::of(store_time(deadline));
                if let Some(first) = first {
                    proof.learn(&horizon(first));
                }
                proof.learn(&horizon(now))
            }
        }
    }

    fn is_stranger(variant: &Variant, i: usize) -> bool {
        variant.stranger && i + 1 == variant.writers
    }

    fn unlock(&mut self) {
        self.locked = false;
    }

    fn sweeper_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(Step, Self)>) {
        let writer = self.writers[i];
        let SharedState::Quarantine(quarantine) = &self.cache.entry.state else {
            return;
        };
        let token = writer_token(i);
        let is_marked = quarantine.marks.iter().any(|(marked, _)| *marked == token);
        if !is_marked || !self.is_current() {
            return;
        }
        let look = self.look();
        if Self::proves(variant, writer.commit_by, writer.look, look) {
            let mut state = self.clone();
            state.writers[i].look = None;
            state.cache.entry.sweep(&self.cache.shard, token);
            next.push((Step::IsSwept(i), state));
        } else if variant.sweep == Sweep::Proven
            && look.0 > writer.commit_by
            && writer.look.is_none()
        {
            let mut state = self.clone();
            state.writers[i].look = Some(look);
            next.push((Step::SweeperLooks(i), state));
        }
    }

    fn reader_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(Step, Self)>) {
        let (reader, left) = self.readers[i];
        let token = Token((i as u64) * 10 + u64::from(left));
        let mut state = self.clone();
        let step = match reader {
            Reader::Idle if left > 0 && self.is_current() => {
                // The first reader finds everything past its freshness, and so loads anew what is clean.
                let now = Timestamp::from_millis(if i == 0 { 20 } else { 0 });
                let asked = state.cache.entry.ask(&self.cache.shard, token, now);
                if !matches!(asked, Asked::Lease(_)) {
                    return;
                }
                state.readers[i].0 = Reader::Leased;
                Step::Leases(i)
            }
            Reader::Leased => {
                state.readers[i].0 = Reader::Loaded(self.row);
                Step::Loads(i, self.row)
            }
            Reader::Loaded(loaded) => {
                // A cache that needs a generation takes nothing; the reader is answered all the same.
                if self.is_current() {
                    state
                        .cache
                        .entry
                        .fill(&self.cache.shard, &fill(token, loaded));
                }
                state.readers[i] = (Reader::Idle, left - 1);
                if !variant.stranger {
                    state.known = state.known.max(loaded);
                }
                Step::Fills(i, loaded)
            }
            Reader::Idle => return,
        };
        next.push((step, state));
    }

    fn cache_steps(&self, variant: &Variant, next: &mut Vec<(Step, Self)>) {
        let mut push = |step, change: &dyn Fn(&mut Self)| {
            let mut state = self.clone();
            change(&mut state);
            next.push((step, state));
        };
        match &self.cache.entry.state {
            SharedState::Lease(_) => push(Step::LeaseEnds, &|s| s.cache.entry.lease_ends()),
            SharedState::Clean(clean) if clean.refresh.is_some() => {
                push(Step::LeaseEnds, &|s| s.cache.entry.lease_ends());
            }
            SharedState::Quarantine(_) if variant.evicts_quarantine => {
                push(Step::Evicts, &|s| s.cache.entry.state = SharedState::Absent);
            }
            _ => {}
        }
        if variant.evicts && matches!(self.cache.entry.state, SharedState::Clean(_)) {
            push(Step::Evicts, &|s| {
                s.cache.entry.evict(&self.cache.shard);
            });
        }
        let may_read = self.served().is_none() && !variant.stranger && self.known < self.row;
        if may_read {
            push(Step::SomebodyReadsStore(self.row), &|s| s.known = self.row);
        }
        if self.clock < CLOCK_MAX {
            push(Step::ClockSteps, &|s| s.clock += 1);
        }
        if let Some(replica) = &self.replica
            && self.failovers > 0
        {
            if *replica != self.cache {
                push(Step::ReplicaFollows, &|s| {
                    s.replica = Some(self.cache.clone());
                });
            }
            push(Step::FailsOver, &|s| {
                s.failovers -= 1;
                s.cache = replica.clone();
                s.server += u64::from(variant.checks_server);
                if s.failovers == 0 {
                    s.replica = None;
                }
            });
        }
        if !self.is_current() {
            push(Step::RaisesGeneration, &|s| {
                s.generation += 1;
                let generation = u64::from(s.generation);
                s.cache.shard.open_generation(generation, s.server);
                s.grace = Some((s.clock, None));
            });
        }
        if let Some((deadline, first)) = self.grace
            && self.is_current()
        {
            let look = self.look();
            if Self::proves(variant, deadline, first, look) {
                push(Step::Opens, &|s| {
                    s.grace = None;
                    s.cache.shard.open(u64::from(s.generation));
                });
            } else if variant.sweep == Sweep::Proven && look.0 > deadline && first.is_none() {
                push(Step::OpenerLooks, &|s| {
                    s.grace = Some((deadline, Some(look)));
                });
            }
        }
    }
}

fn key() -> SharedKey {
    SharedKey {
        class: "c".into(),
        key: "k".into(),
    }
}

fn fill(token: Token, number: u8) -> Fill {
    Fill {
        key: key(),
        token,
        held: held(number),
        life: LIFE,
    }
}

impl Model for State {
    type Variant = Variant;
    type Step = Step;

    fn next(&self, variant: &Variant, next: &mut Vec<(Step, Self)>) {
        for i in 0..variant.writers {
            self.writer_steps(variant, i, next);
            self.sweeper_steps(variant, i, next);
        }
        for i in 0..variant.readers {
            self.reader_steps(variant, i, next);
        }
        self.cache_steps(variant, next);
        for (_, state) in next {
            state.tidy(variant);
        }
    }

    fn violation(&self, _: &Variant) -> Option<&'static str> {
        let served = self.served()?;
        let is_quiet = self.writers.iter().all(|writer| match writer.at {
            At::Start | At::Done => true,
            At::Refused | At::Committed | At::Told => writer.dead,
            _ => false,
        }) && self
            .readers
            .iter()
            .all(|(reader, _)| *reader == Reader::Idle);
        if is_quiet && served < self.row {
            return Some(STALE_FOR_EVER);
        }
        (served < self.known).then_some(STALE)
    }

    fn milestone(&self) -> Option<&'static str> {
        if self.served() == Some(self.row) && self.row > 1 {
            return Some(match self.generation {
                1 => SERVED,
                _ => SERVED_AFTER,
            });
        }
        None
    }
}
