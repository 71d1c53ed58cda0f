//! Two caches side by side: the same random commands to both, and after each the same answers and the same state.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{
    Ask, Each, Ended, Expected, Fill, Flushed, Held, Life, Mark, Put, PutOutcome, Release, Replay,
    Shard, SharedCache, SharedError, SharedKey, Timestamp, Token, Value, shard_of,
};

use super::Scene;
use super::stage::{NOW, store_time, token};

/// What is done to both.
#[derive(Clone, Copy, Debug)]
pub struct Differential {
    /// Of all chance. Printed when the two differ.
    pub seed: u64,
    /// How many commands.
    pub steps: usize,
    /// How many keys, spread over a few shards.
    pub keys: usize,
    /// Both scenes can lose everything, and do.
    pub losses: bool,
    /// Both scenes can restart, save and fail over, and do.
    pub failovers: bool,
}

impl Default for Differential {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 2000,
            keys: 6,
            losses: false,
            failovers: false,
        }
    }
}

/// A command, the same for both.
#[derive(Clone, Debug)]
enum Command {
    Get(Vec<SharedKey>),
    Ask(Vec<Ask>, Timestamp),
    Fill(Vec<Fill>),
    Mark(Vec<Mark>),
    Release(Vec<Release>),
    Sweep(Vec<(SharedKey, Token)>),
    Invalidate(Vec<(SharedKey, Version)>),
    Evict(Vec<SharedKey>),
    Clear,
    Put(Vec<Put>),
    Claim(Shard, usize, Timestamp, Duration),
    Settle(Vec<(SharedKey, Version, Flushed)>),
    Unpark(Vec<(SharedKey, Version)>, Timestamp),
    Replay(Vec<Replay>),
    OpenGeneration(Vec<Shard>, u64),
    Open(Vec<Shard>, u64),
    LoseEverything,
    Restart,
    Save,
    FailOver,
}

/// An error as two implementations can share it.
fn kind(error: SharedError) -> String {
    match error {
        SharedError::Unavailable { .. } => "unavailable".into(),
        other => format!("{other:?}"),
    }
}

fn each<T>(answers: Each<T>) -> Vec<Result<T, String>> {
    answers
        .into_iter()
        .map(|answer| answer.map_err(kind))
        .collect()
}

/// What chance chooses from, learnt from the answers of the first of the two.
struct Chance {
    random: fastrand::Rng,
    keys: Vec<SharedKey>,
    shards: Vec<Shard>,
    now: Timestamp,
    tokens: u64,
    generation: u64,
    saved: bool,
    leases: Vec<(SharedKey, Token)>,
    marks: Vec<(SharedKey, Token)>,
    versions: Vec<(SharedKey, Version)>,
}

const REMEMBERED: usize = 12;

fn remember<T>(all: &mut Vec<T>, one: T) {
    all.push(one);
    if all.len() > REMEMBERED {
        all.remove(0);
    }
}

impl Chance {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.u32(..n) == 0
    }

    fn key(&mut self) -> SharedKey {
        let at = self.random.usize(..self.keys.len());
        self.keys[at].clone()
    }

    /// A few different keys.
    fn some_keys(&mut self) -> Vec<SharedKey> {
        let mut keys = self.keys.clone();
        self.random.shuffle(&mut keys);
        keys.truncate(1 + self.random.usize(..3));
        keys
    }

    fn shard(&mut self) -> Shard {
        let at = self.random.usize(..self.shards.len());
        self.shards[at]
    }

    /// Later than ever before.
    fn tick(&mut self) -> Timestamp {
        let by = Duration::from_millis(1 + self.random.u64(..150));
        self.now = self.now.after(by);
        self.now
    }

    fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// A version that the key may have, or that is near to one.
    fn version(&mut self, key: &SharedKey) -> Version {
        let near = self.versions.iter().filter(|(of, _)| of == key);
        let near: Vec<Version> = near.map(|(_, version)| *version).collect();
        if near.is_empty() || self.one_in(3) {
            let generation = self.random.u64(..=self.generation + 1);
            return Version::compose(generation, self.random.u64(..60));
        }
        let version = near[self.random.usize(..near.len())].raw();
        let by = self.random.u64(..4);
        Version::from_raw(match self.one_in(2) {
            true => version,
            false if self.one_in(2) => version + by,
            false => version.saturating_sub(by),
        })
    }

    fn value(&mut self) -> Option<Value> {
        if self.one_in(5) {
            return None;
        }
        let length = self.random.usize(..40);
        let bytes: Vec<u8> = (0..length).map(|_| self.random.u8(..)).collect();
        let expires_at = self.one_in(3).then(|| {
            let by = self.random.u64(..2000);
            Timestamp::from_millis(self.now.as_millis() + by - 1000)
        });
        Some(Value {
            bytes: bytes.into(),
            expires_at,
        })
    }

    fn held(&mut self, key: &SharedKey) -> Held {
        Held {
            version: self.version(key),
            value: self.value(),
        }
    }

    fn life(&mut self) -> Life {
        let fresh = Duration::from_millis(self.random.u64(..3000));
        Life {
            fresh_until: self.now.after(fresh),
            kept_for: Duration::from_secs(36_000),
        }
    }

    fn ended(&mut self, key: &SharedKey) -> Ended {
        match self.random.u8(..6) {
            0 => Ended::Aborted,
            1 => Ended::CommittedUnseen(self.version(key)),
            _ => Ended::Committed {
                held: self.held(key),
                life: self.life(),
            },
        }
    }

    /// One that was seen, now and then one that was not.
    fn used(&mut self, of: fn(&Self) -> &Vec<(SharedKey, Token)>) -> (SharedKey, Token) {
        let used = of(self).len();
        if used == 0 || self.one_in(8) {
            return (self.key(), token(self.tokens));
        }
        let at = self.random.usize(..used);
        of(self)[at].clone()
    }

    fn flushed(&mut self, key: &SharedKey) -> Flushed {
        match self.random.u8(..10) {
            0..=4 => Flushed::Stored(self.life()),
            5 => Flushed::Again(
                self.now
                    .after(Duration::from_millis(self.random.u64(..500))),
            ),
            6 => Flushed::Over(self.version(key)),
            7 | 8 => Flushed::Parked(format!("said {}", self.random.u8(..3)).into()),
            _ => Flushed::Dropped,
        }
    }

    fn put(&mut self, key: SharedKey) -> Put {
        let expected = match self.one_in(3) {
            true => Expected::Version(self.version(&key)),
            false => Expected::Any,
        };
        Put {
            value: self.value(),
            expected,
            now: self.tick(),
            shard_bytes_max: if self.one_in(6) { 300 } else { 1 << 30 },
            key,
        }
    }

    /// A version that was told of, of any key.
    fn told(&mut self) -> (SharedKey, Version) {
        if self.versions.is_empty() || self.one_in(10) {
            let key = self.key();
            let version = self.version(&key);
            return (key, version);
        }
        // The last ones are of most use.
        let last = self.versions.len() - 1;
        let back = self.random.usize(..=last).min(self.random.usize(..=last));
        self.versions[last - back].clone()
    }

    fn command(&mut self, settings: &Differential, closed: bool) -> Command {
        let now = self.tick();
        if closed && self.one_in(4) {
            return self.generation();
        }
        if settings.losses && self.one_in(120) {
            return Command::LoseEverything;
        }
        if settings.failovers && self.one_in(60) {
            return match self.random.u8(..3) {
                0 => Command::Restart,
                1 if self.saved => Command::FailOver,
                _ => Command::Save,
            };
        }
        match self.random.u32(..100) {
            0..=4 => Command::Get(self.some_keys()),
            5..=19 => {
                let keys = self.some_keys();
                let ask = |key| Ask {
                    key,
                    token: token(self.token()),
                };
                Command::Ask(keys.into_iter().map(ask).collect(), now)
            }
            20..=31 => {
                let (key, token) = self.used(|chance| &chance.leases);
                let (held, life) = (self.held(&key), self.life());
                Command::Fill(vec![Fill {
                    key,
                    token,
                    held,
                    life,
                }])
            }
            32..=41 => {
                let keys = self.some_keys();
                let mark = |key| {
                    let number = self.token();
                    let commit_by = store_time(i64::try_from(number * 10).unwrap_or(0));
                    Mark {
                        key,
                        token: token(number),
                        commit_by,
                    }
                };
                Command::Mark(keys.into_iter().map(mark).collect())
            }
            42..=54 => {
                let (key, token) = self.used(|chance| &chance.marks);
                let ended = self.ended(&key);
                Command::Release(vec![Release { key, token, ended }])
            }
            55..=57 => Command::Sweep(vec![self.used(|chance| &chance.marks)]),
            58..=61 => {
                let key = self.key();
                let version = self.version(&key);
                Command::Invalidate(vec![(key, version)])
            }
            62..=63 => Command::Evict(self.some_keys()),
            64 => Command::Clear,
            65..=76 => {
                let keys = self.some_keys();
                Command::Put(keys.into_iter().map(|key| self.put(key)).collect())
            }
            77..=82 => {
                let limit = self.random.usize(..3);
                Command::Claim(self.shard(), limit, now, Duration::from_millis(700))
            }
            83..=92 => {
                let (key, version) = self.told();
                let flushed = self.flushed(&key);
                Command::Settle(vec![(key, version, flushed)])
            }
            93..=95 => Command::Unpark(vec![self.told()], now),
            96..=97 => {
                let key = self.key();
                let held = self.held(&key);
                let base = (!self.one_in(3)).then(|| self.version(&key));
                Command::Replay(vec![Replay {
                    key,
                    held,
                    base,
                    now,
                }])
            }
            _ => self.generation(),
        }
    }

    fn generation(&mut self) -> Command {
        let shards = match self.one_in(2) {
            true => self.shards.clone(),
            false => vec![self.shard()],
        };
        match self.random.u8(..6) {
            0 => Command::OpenGeneration(shards, self.generation),
            1 | 2 => {
                self.generation += 1;
                Command::OpenGeneration(shards, self.generation)
            }
            3 => Command::Open(shards, self.generation.saturating_sub(1)),
            _ => Command::Open(shards, self.generation),
        }
    }

    /// Learns what a command brought into play.
    fn learn(&mut self, command: &Command, told: Vec<(SharedKey, Version)>) {
        match command {
            Command::Ask(asks, _) => {
                for ask in asks {
                    remember(&mut self.leases, (ask.key.clone(), ask.token));
                }
            }
            Command::Mark(marks) => {
                for mark in marks {
                    remember(&mut self.marks, (mark.key.clone(), mark.token));
                }
            }
            Command::Save => self.saved = true,
            _ => {}
        }
        for told in told {
            remember(&mut self.versions, told);
        }
    }
}

/// Does a command, and tells the answer and the versions in it.
async fn act(scene: &dyn Scene, command: &Command) -> (String, Vec<(SharedKey, Version)>) {
    let cache = scene.cache();
    let mut versions = Vec::new();
    let answer = match command.clone() {
        Command::Get(keys) => format!("{:?}", each(cache.get(&keys).await)),
        Command::Ask(asks, now) => format!("{:?}", each(cache.ask(&asks, now).await)),
        Command::Fill(fills) => {
            versions.extend(
                fills
                    .iter()
                    .map(|fill| (fill.key.clone(), fill.held.version)),
            );
            format!("{:?}", each(cache.fill(&fills).await))
        }
        Command::Mark(marks) => format!("{:?}", each(cache.mark(&marks).await)),
        Command::Release(releases) => {
            let ended = |release: &Release| Some((release.key.clone(), release.ended.version()?));
            versions.extend(releases.iter().filter_map(ended));
            format!("{:?}", each(cache.release(&releases).await))
        }
        Command::Sweep(marks) => format!("{:?}", each(cache.sweep(&marks).await)),
        Command::Invalidate(changed) => format!("{:?}", each(cache.invalidate(&changed).await)),
        Command::Evict(keys) => format!("{:?}", each(cache.evict(&keys).await)),
        Command::Clear => format!("{:?}", cache.clear().await.map_err(kind)),
        Command::Put(puts) => {
            let answers = cache.put(&puts).await;
            for (put, answer) in puts.iter().zip(&answers) {
                if let Ok(PutOutcome::Dirty { version, .. }) = answer {
                    versions.push((put.key.clone(), *version));
                }
            }
            format!("{:?}", each(answers))
        }
        Command::Claim(shard, limit, now, claim_for) => {
            let claimed = cache.claim(shard, limit, now, claim_for).await;
            for claimed in claimed.iter().flatten() {
                versions.push((claimed.key.clone(), claimed.held.version));
            }
            format!("{:?}", claimed.map_err(kind))
        }
        Command::Settle(flushed) => format!("{:?}", each(cache.settle(&flushed).await)),
        Command::Unpark(parked, now) => format!("{:?}", each(cache.unpark(&parked, now).await)),
        Command::Replay(replays) => {
            versions.extend(
                replays
                    .iter()
                    .map(|replay| (replay.key.clone(), replay.held.version)),
            );
            format!("{:?}", each(cache.replay(&replays).await))
        }
        Command::OpenGeneration(shards, generation) => {
            let states = cache.open_generation(&shards, generation).await;
            format!("{:?}", each(states))
        }
        Command::Open(shards, generation) => {
            format!("{:?}", each(cache.open(&shards, generation).await))
        }
        Command::LoseEverything => scene.lose_everything().await.to_string(),
        Command::Restart => scene.restart().await.to_string(),
        Command::Save => scene.save().await.to_string(),
        Command::FailOver => scene.fail_over().await.to_string(),
    };
    if let Command::LoseEverything | Command::Restart | Command::FailOver = command {
        answers(scene).await;
    }
    (answer, versions)
}

/// Waits until a server that became another answers.
async fn answers(scene: &dyn Scene) {
    for _ in 0..500 {
        if scene.cache().ping().await.is_ok() {
            return;
        }
        scene.clock().sleep(Duration::from_millis(20)).await;
    }
    panic!("the cache does not answer any more");
}

/// All that can be seen of the keys and shards, and whether a shard is not open.
async fn seen(cache: &dyn SharedCache, keys: &[SharedKey], shards: &[Shard]) -> (String, bool) {
    let mut seen = String::new();
    let states = each(cache.shard_states(shards).await);
    let closed = states
        .iter()
        .any(|state| !state.as_ref().is_ok_and(|state| state.is_open));
    // Writing to a string does not fail.
    let _ = writeln!(seen, "shards {states:?}");
    for (key, got) in keys.iter().zip(each(cache.get(keys).await)) {
        let _ = writeln!(seen, "{key:?} {got:?}");
    }
    let _ = writeln!(seen, "dirty {:?}", each(cache.dirty(shards).await));
    for shard in shards {
        let before = store_time(i64::from(i32::MAX));
        let left = cache.leftovers(*shard, before, 1000).await;
        let left = left.map(|mut left| {
            left.sort_by_key(|left| (left.commit_by, left.key.clone(), left.token));
            left
        });
        let parked = cache.parked(*shard, 1000).await;
        let parked = parked.map(|mut parked| {
            parked.sort_by_key(|(parked, _)| parked.key.clone());
            parked
        });
        let (left, parked) = (left.map_err(kind), parked.map_err(kind));
        let _ = writeln!(seen, "{shard:?} leftovers {left:?} parked {parked:?}");
    }
    (seen, closed)
}

/// Does the same to both and compares all that they tell. Both are empty, have the same number of shards, and leases
/// that hold longer than this takes.
///
/// # Panics
/// When they differ; the message has the seed, the last commands and both answers.
pub async fn differential(settings: Differential, one: Arc<dyn Scene>, other: Arc<dyn Scene>) {
    let count = one.cache().shards();
    assert_eq!(
        count,
        other.cache().shards(),
        "not the same number of shards"
    );
    let keys: Vec<SharedKey> = (0..settings.keys)
        .map(|n| SharedKey {
            class: if n % 3 == 2 { "other" } else { "one" }.into(),
            key: format!("key {}", n / 2).as_str().into(),
        })
        .collect();
    let mut shards: Vec<Shard> = keys.iter().map(|key| shard_of(&key.key, count)).collect();
    shards.sort();
    shards.dedup();
    let mut chance = Chance {
        random: fastrand::Rng::with_seed(settings.seed),
        keys: keys.clone(),
        shards: shards.clone(),
        now: NOW,
        tokens: 0,
        generation: 0,
        saved: false,
        leases: Vec::new(),
        marks: Vec::new(),
        versions: Vec::new(),
    };
    let mut done: Vec<String> = Vec::new();
    let mut closed = true;
    for step in 0..settings.steps {
        let command = chance.command(&settings, closed);
        remember(&mut done, format!("{command:?}"));
        let (left, told) = act(&*one, &command).await;
        let (right, _) = act(&*other, &command).await;
        let context = |what: &str| {
            format!(
                "{what} differ at step {step} of seed {}; the last commands:\n{}",
                settings.seed,
                done.join("\n")
            )
        };
        assert!(left == right, "{}\n{left}\n{right}", context("answers"));
        let (left, is_closed) = seen(&*one.cache(), &keys, &shards).await;
        let (right, _) = seen(&*other.cache(), &keys, &shards).await;
        assert!(left == right, "{}\n{left}\n{right}", context("states"));
        closed = is_closed;
        chance.learn(&command, told);
    }
}
