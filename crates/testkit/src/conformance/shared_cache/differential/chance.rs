//! Chance that chooses what may matter.

use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{
    Ask, Ended, Expected, Fill, Flushed, Held, Life, Mark, Put, Release, Replay, Shard, SharedKey,
    Timestamp, Token, Value,
};

use super::Differential;
use super::act::Command;
use crate::conformance::shared_cache::stage::{NOW, store_time, token};

/// What chance chooses from, learnt from the answers of the first of the two.
pub(super) struct Chance {
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

pub(super) fn remember<T>(all: &mut Vec<T>, one: T) {
    all.push(one);
    if all.len() > REMEMBERED {
        all.remove(0);
    }
}

impl Chance {
    pub(super) fn new(seed: u64, keys: &[SharedKey], shards: &[Shard]) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            keys: keys.to_vec(),
            shards: shards.to_vec(),
            now: NOW,
            tokens: 0,
            generation: 0,
            saved: false,
            leases: Vec::new(),
            marks: Vec::new(),
            versions: Vec::new(),
        }
    }

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

    pub(super) fn command(&mut self, settings: &Differential, closed: bool) -> Command {
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
    pub(super) fn learn(&mut self, command: &Command, told: Vec<(SharedKey, Version)>) {
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
