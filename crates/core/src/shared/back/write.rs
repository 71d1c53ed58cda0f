//! A write over the shared cache: let in, put, journalled, acknowledged.
//!
//! The caller does it all itself: concurrent puts go out in one pipeline anyway, and the cache decides their order.
//! What is put is seen by every node at once, also before it is acknowledged: a caller that goes away half-way leaves
//! a write that is wholly there, or wholly not.

use std::time::Duration;

use super::kept::KeptWrite;
use super::replay::replay;
use super::room::full;
use super::stored::{NotStored, until_stored};
use super::watch::look;
use super::{Back, put_failed, store_is_away};
use crate::class::{Class, WhenFull, WhenJournalFails};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Layer;
use crate::port::{
    ENTRY_OVERHEAD_BYTES, Expected, Flushed, Held, JournalError, Put, PutOutcome, Shard,
    SharedError, SharedKey, Value, shard_of,
};
use crate::receipt::{Durability, Receipt, Source, Written};
use crate::version::Version;

/// What a writer waits between two attempts: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Past half of a bound what is known of all that is dirty is not older than this when a write is let in.
const KNOWN_FOR: Duration = Duration::from_millis(20);
/// Writes that go through past a bound may make it so many times the bound, and no more.
const THROUGH_SHARE: u64 = 2;
/// What a write waits at most when its class is just below a bound.
const PACE_MAX: Duration = Duration::from_millis(20);

/// One write on its way.
pub(super) struct Writer<'a> {
    pub(super) layer: &'a Layer,
    pub(super) back: &'a Back,
    pub(super) class: usize,
    pub(super) key: &'a SharedKey,
    /// When it gives up waiting, in elapsed time.
    until: Duration,
    pause: Duration,
}

/// How a write is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Acknowledged when it is in the cache, and the journal.
    Back,
    /// Acknowledged when it is in the store.
    Through,
}

/// A write that the cache has.
pub(super) struct Placed {
    pub(super) version: Version,
    /// Whether the key was there before, if the cache knew.
    pub(super) existed: Option<bool>,
    /// What its row is, as far as the cache knows.
    base: Option<Version>,
    way: Way,
}

impl<'a> Writer<'a> {
    pub(super) fn new(layer: &'a Layer, back: &'a Back, class: usize, key: &'a SharedKey) -> Self {
        let patience = layer.class(class).block_timeout;
        Self {
            layer,
            back,
            class,
            key,
            until: layer.clock.elapsed().saturating_add(patience),
            pause: PAUSE_MIN,
        }
    }

    fn settings(&self) -> &'a Class {
        self.layer.class(self.class)
    }

    /// Puts a write into the cache and makes it as durable as the class says. Nothing if the key does not hold what
    /// was expected: then nothing was done.
    ///
    /// # Errors
    /// Unknown if it may have been made, otherwise nothing was done.
    pub(super) async fn write(
        &mut self,
        value: Option<Value>,
        expected: Expected,
    ) -> Result<Option<Written>> {
        let given_back = self.back.given_back.begun(self.shard());
        let Some(placed) = self.place(&value, expected).await? else {
            return Ok(None);
        };
        let (version, existed) = (placed.version, placed.existed.unwrap_or(false));
        let durability = self.secure(placed, value, given_back).await?;
        let source = match durability {
            Durability::Store => Source::Store,
            _ => Source::Dirty,
        };
        let receipt = Receipt {
            version,
            source,
            age_bound: Duration::ZERO,
            durability,
        };
        Ok(Some(Written { existed, receipt }))
    }

    async fn place(&mut self, value: &Option<Value>, expected: Expected) -> Result<Option<Placed>> {
        let (layer, back) = (self.layer, self.back);
        let value_bytes = value.as_ref().map_or(0, |value| value.bytes.len());
        let bytes = self.key.key.len() as u64 + value_bytes as u64 + ENTRY_OVERHEAD_BYTES;
        let mut way = self.admit(bytes).await?;
        loop {
            let shard_bytes_max = match way {
                Way::Back => back.room.shard_bytes_max(self.settings(), bytes),
                Way::Through => self.settings().dirty_bytes_max.max(bytes),
            };
            let now = layer.clock.now();
            let put = Put {
                key: self.key.clone(),
                value: value.clone(),
                expected,
                now,
                shard_bytes_max,
            };
            let answer = back.put(layer, put).await;
            if let Some(shared) = &layer.shared {
                // Before anybody is told, also where it is not known what became of the write.
                shared.copies.forget(layer, self.key.key.as_bytes());
            }
            match answer {
                Ok(PutOutcome::Dirty {
                    version,
                    existed,
                    base,
                }) => {
                    self.placed(version, bytes, way);
                    return Ok(Some(Placed {
                        version,
                        existed,
                        base,
                        way,
                    }));
                }
                Ok(PutOutcome::Changed) => return Ok(None),
                Ok(PutOutcome::Busy) | Err(SharedError::NeedsGeneration { .. }) => {
                    self.wait(recovering).await?;
                }
                Ok(PutOutcome::Full) => match self.settings().when_full {
                    WhenFull::WriteThrough if way == Way::Back => way = self.through()?,
                    WhenFull::Block => {
                        let _waiting = back.room.wait();
                        back.due.all_at(layer.clock.elapsed());
                        self.wait(|| self.full(WAITED)).await?;
                    }
                    WhenFull::Reject | WhenFull::WriteThrough => return Err(self.full("")),
                },
                Err(error) => return Err(put_failed(error)),
            }
        }
    }

    /// The cache has it: for the flusher.
    fn placed(&self, version: Version, bytes: u64, way: Way) {
        let (layer, back, class) = (self.layer, self.back, self.settings());
        let shard = self.shard();
        let (now, elapsed) = (layer.clock.now(), layer.clock.elapsed());
        back.saw(version);
        back.room.add(shard, bytes, now);
        let batch = class.batch.min(layer.batch_max).max(1);
        let is_full = back.due.written(bytes, batch, class.batch_bytes);
        if is_full || back.room.is_past_soft(class, now) {
            back.due.at(shard, elapsed);
            back.due.all_at(elapsed);
        } else if way == Way::Through {
            back.due.at(shard, elapsed);
        } else {
            back.due.at(shard, elapsed.saturating_add(class.linger));
        }
    }

    /// Makes a write in the cache as durable as it is to be.
    async fn secure(
        &self,
        placed: Placed,
        value: Option<Value>,
        given_back: u64,
    ) -> Result<Durability> {
        let durability = self.settings().durability;
        let version = placed.version;
        if placed.way == Way::Back {
            let held = Held { version, value };
            match durability {
                Durability::Journal | Durability::Both => {
                    match self.journal(held, placed.base).await {
                        Ok(write) => {
                            self.keep(write, given_back).await?;
                            return Ok(durability);
                        }
                        // The cache has it and the journal may not: the store makes up for it.
                        Err(error) => self.layer.note_journal_failure(&error),
                    }
                }
                _ => return Ok(durability),
            }
        }
        let left = self.settings().block_timeout;
        let until = self.layer.clock.elapsed().saturating_add(left);
        match until_stored(self.layer, self.back, self.key, version, until).await {
            Ok(()) => Ok(Durability::Store),
            Err(NotStored::Refused(refusal)) if placed.way == Way::Through => {
                let dropped = [(self.key.clone(), version, Flushed::Dropped)];
                drop(self.back.settle(self.layer, &dropped).await);
                Err(Error::new(ErrorKind::Refused, &refusal.message))
            }
            Err(_) => Err(Error::new(
                ErrorKind::Unknown,
                format_args!(
                    "the write is in the shared cache and goes on by itself, but did not reach the store within \
                     {left:?} (block_timeout), nor a journal"
                ),
            )),
        }
    }

    async fn journal(&self, held: Held, base: Option<Version>) -> Result<KeptWrite, JournalError> {
        let write = KeptWrite {
            key: self.key.clone(),
            held,
            base,
            since: self.layer.clock.now(),
            lost: None,
        };
        self.back.journal(self.layer, &write).await?;
        Ok(write)
    }

    /// Sees to it that the cache has a write whose record is durable: not if it lost what it had between the two, and
    /// this node's journal was given back without the record.
    async fn keep(&self, write: KeptWrite, given_back: u64) -> Result<()> {
        if self.back.given_back.begun(self.shard()) == given_back {
            return Ok(());
        }
        let late = || {
            Error::new(
                ErrorKind::Unknown,
                "the write is in the journal and goes on by itself, but the shared cache lost it and does not take it \
                 back yet",
            )
        };
        let mut left = vec![write];
        loop {
            left = replay(self.layer, self.back, left).await;
            if left.is_empty() {
                return Ok(());
            }
            self.wait(late).await?;
        }
    }

    fn shard(&self) -> Shard {
        shard_of(&self.key.key, self.back.shards)
    }

    /// Lets a write of so many bytes in, or makes it wait.
    async fn admit(&mut self, bytes: u64) -> Result<Way> {
        let (layer, back, class) = (self.layer, self.back, self.settings());
        if matches!(class.durability, Durability::Journal | Durability::Both)
            && let Some(error) = layer.journal_failure()
        {
            return match class.when_journal_fails {
                WhenJournalFails::Refuse => Err(error),
                WhenJournalFails::WriteThrough => self.through(),
            };
        }
        let has_room = || back.room.has_room(class, bytes, layer.clock.now());
        let is_near = back.room.is_past_soft(class, layer.clock.now());
        if !is_near && has_room() {
            return Ok(Way::Back);
        }
        // What is known may be old: other nodes write too.
        let since = match has_room() {
            true => layer.clock.elapsed().saturating_sub(KNOWN_FOR),
            false => layer.clock.elapsed(),
        };
        look(layer, back, since).await;
        if has_room() {
            return Ok(Way::Back);
        }
        match class.when_full {
            WhenFull::Reject => return Err(self.full("")),
            WhenFull::WriteThrough => return self.through(),
            WhenFull::Block => {}
        }
        let _waiting = back.room.wait();
        back.due.all_at(layer.clock.elapsed());
        loop {
            let since = layer.clock.elapsed();
            self.wait(|| self.full(WAITED)).await?;
            look(layer, back, since).await;
            if has_room() {
                return Ok(Way::Back);
            }
        }
    }

    /// Lets a write in past a bound, or past a broken journal: only if the store seems well, and not without end.
    fn through(&self) -> Result<Way> {
        let (layer, class, total) = (self.layer, self.settings(), self.back.room.total());
        if store_is_away(layer) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the store is away, and the write must go through it: there is no room to keep it",
            ));
        }
        let entries_max = class.dirty_entries_max.saturating_mul(THROUGH_SHARE);
        let bytes_max = class.dirty_bytes_max.saturating_mul(THROUGH_SHARE);
        if total.entries > entries_max || total.bytes > bytes_max {
            return Err(self.full(""));
        }
        Ok(Way::Through)
    }

    fn full(&self, waited: &str) -> Error {
        let (total, now) = (self.back.room.total(), self.layer.clock.now());
        full(&total, self.settings(), now, waited)
    }

    /// Waits a little, a random time that grows; after `until` it is an error.
    pub(super) async fn wait(&self, late: impl FnOnce() -> Error) -> Result<()> {
        let clock = &*self.layer.clock;
        let left = self.until.saturating_sub(clock.elapsed());
        if left.is_zero() {
            return Err(late());
        }
        let bound = self.back.pause(clock, self.pause);
        clock.sleep(bound.min(left)).await;
        Ok(())
    }

    /// The next wait is longer.
    pub(super) fn tire(&mut self) {
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

const WAITED: &str = ", and the write waited its block_timeout";

/// What a write is told that waited for its shard in vain.
pub(super) fn recovering() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the shared cache takes stock of what it may have lost and takes no writes of the key now",
    )
}

/// Slows a writer down whose class nears a bound: the closer, the longer.
pub(crate) async fn pace(layer: &Layer, back: &Back, class: usize) {
    let settings = layer.class(class);
    if let Some(past) = back.room.past_high(settings, layer.clock.now()) {
        let wait = PACE_MAX.mul_f64(past * past).min(settings.block_timeout);
        layer.clock.sleep(wait).await;
    }
}
