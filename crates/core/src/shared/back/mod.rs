//! Write-back over the shared cache: acknowledged when the cache has it, and this node's journal where the class says
//! so; any node brings it to the store.
//!
//! - What the caller is told: acknowledged means that every node sees the write, and that it survives what the class's
//!   [durability](crate::Durability) names.
//! - When: after one step in the cache, which decides the order of all writes of the key on all nodes; of durability
//!   journal and both after the sync of the journal too.
//! - What a crash costs: a node that dies, nothing: what it had claimed is flushed by another when its claims run out.
//!   A cache that loses what it had loses what is in no journal; what is in one is given back before the shard is
//!   used again, or when the node with that journal is back.
//!
//! In reading order: [`write`] and [`update`] (a write), [`room`] and [`watch`] (the bounds), [`due`], [`drive`],
//! [`round`], [`claims`], [`meet`] and [`known`] (the flush), [`letters`], [`mend`] and [`said`] (what the store does not take), [`kept`],
//! [`replay`], [`give_back`], [`probe`] and [`upkeep`] (the journal), [`stored`] and [`report`] (waiting for the store), [`calls`].
//!
//! The dirty entries of the lanes are not used: no lane knows of the other nodes. Additions reach the store as what they
//! come to; classes of deltas are refused.

mod calls;
mod claims;
mod drive;
mod due;
pub(crate) mod give_back;
mod kept;
mod known;
pub(crate) mod letters;
mod meet;
pub(crate) mod mend;
mod probe;
pub(crate) mod replay;
pub(crate) mod report;
mod room;
mod round;
mod said;
mod secure;
mod stored;
mod update;
pub(crate) mod upkeep;
mod watch;
pub(crate) mod write;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{MutexGuard, Notify};

pub(crate) use kept::{KeptWrite, change_of, value_of};
pub(crate) use secure::secure;

use crate::class::{Class, Strategy};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hasher;
use crate::key::Key;
use crate::lane::Operation;
use crate::layer::Layer;
use crate::port::{
    Clock, Expected, JournalError, Life, SharedCache, SharedError, SharedKey, Value,
};
use crate::receipt::Durability;
use crate::strategy::write_back::check;
use crate::version::Version;

use due::Due;
use give_back::GivenBack;
use kept::Kept;
use known::Known;
use letters::Letters;
use room::Room;
use write::Writer;

/// Updates of so many keys may be under way in a node at once; more of them wait for each other.
const TURNS: usize = 1024;
/// An entry that is clean only so that an update can be put over it is kept for so long at least.
const KEPT_FOR_UPDATE: Duration = Duration::from_secs(1);

/// What a node has for write-back over its shared cache.
pub(crate) struct Back {
    shards: u16,
    hasher: Hasher,
    pub(crate) room: Room,
    due: Due,
    pub(crate) kept: Kept,
    pub(crate) letters: Letters,
    turns: Vec<tokio::sync::Mutex<()>>,
    known: Known,
    given_back: GivenBack,
    under_way: AtomicUsize,
    /// The last write that was under way is not any more.
    idle: Notify,
    /// The layer stops.
    stopped: Notify,
}

/// The write-back of a layer over its shared cache, if it has one.
pub(crate) fn of(layer: &Layer) -> Option<&Back> {
    layer.shared.as_ref().map(|shared| &shared.back)
}

/// The same, for a key of this class: nothing if the class is no write-back class, or not over the shared cache.
pub(crate) fn of_class(layer: &Layer, class: usize) -> Option<&Back> {
    let is_back = layer.class(class).strategy == Strategy::WriteBack;
    of(layer).filter(|_| is_back)
}

/// Whether writes of the class are in journals before they are acknowledged.
pub(crate) fn is_journalled(class: &Class) -> bool {
    class.strategy == Strategy::WriteBack
        && matches!(class.durability, Durability::Journal | Durability::Both)
}

/// What an unflushed write of the class has survived.
pub(crate) fn promised(class: &Class) -> Durability {
    match class.strategy {
        Strategy::WriteBack => class.durability,
        // It is of another time, when the class was one.
        _ => Durability::Memory,
    }
}

/// Refuses what write-back over a shared cache cannot do, naming the class and the option.
pub(crate) fn validate(class: &Class) -> Result<()> {
    if class.strategy == Strategy::WriteBack && class.delta {
        return Err(Error::configuration(format_args!(
            "class '{}': delta is not possible over a shared cache yet",
            class.name
        )));
    }
    if class.name.ends_with(claims::LOST) || class.name == claims::FLOOR {
        return Err(Error::configuration(format_args!(
            "class '{}': name is used for something else over a shared cache",
            class.name
        )));
    }
    Ok(())
}

/// A write that is under way, for the drain.
pub(super) struct UnderWay<'a>(&'a Back);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Back {
    pub(crate) fn new(cache: &Arc<dyn SharedCache>, hasher: &Hasher) -> Self {
        let shards = cache.shards().max(1);
        Self {
            shards,
            hasher: hasher.clone(),
            room: Room::new(shards),
            due: Due::default(),
            kept: Kept::new(hasher),
            letters: Letters::new(),
            turns: std::iter::repeat_with(|| tokio::sync::Mutex::const_new(()))
                .take(TURNS)
                .collect(),
            known: Known::new(),
            given_back: GivenBack::new(shards),
            under_way: AtomicUsize::new(0),
            idle: Notify::new(),
            stopped: Notify::new(),
        }
    }

    /// Wakes the drivers, so that each sees that the layer is stopping.
    pub(crate) fn wake_all(&self) {
        self.stopped.notify_waiters();
    }

    /// Begins a write, for as long as what is returned lives.
    ///
    /// # Errors
    /// Closed.
    fn begin(&self, layer: &Layer) -> Result<UnderWay<'_>> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let under_way = UnderWay(self);
        // Looked at after it counts: the drain, which closes first, waits for it.
        match layer.is_closing() {
            true => Err(Error::closed()),
            false => Ok(under_way),
        }
    }

    /// Returns when no write is under way.
    pub(crate) async fn writes_answered(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.under_way.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// The turn of a key among this node's updates.
    async fn turn(&self, key: &SharedKey) -> MutexGuard<'_, ()> {
        let place = self.hasher.hash_one(key) % TURNS as u64;
        let place = usize::try_from(place).unwrap_or(0);
        self.turns[place].lock().await
    }

    /// A version that was given out.
    fn saw(&self, version: Version) {
        self.known.saw(version.generation());
    }

    /// A random wait of at most about `bound`.
    fn pause(&self, clock: &dyn Clock, bound: Duration) -> Duration {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(2);
        Duration::from_micros(micros / 2 + clock.random() % (micros / 2))
    }

    /// For how long what becomes clean may be used.
    fn life(&self, layer: &Layer, class: usize, value: Option<&Value>) -> Life {
        let unkept = || Life {
            fresh_until: layer.clock.now(),
            kept_for: Duration::from_millis(1),
        };
        super::life::life(layer, class, value).unwrap_or_else(unkept)
    }

    /// The same of what is loaded for an update.
    fn life_for_update(&self, layer: &Layer, class: usize, value: Option<&Value>) -> Life {
        let life = self.life(layer, class, value);
        Life {
            kept_for: life.kept_for.max(KEPT_FOR_UPDATE),
            ..life
        }
    }

    /// Puts a write into this node's journal, and returns when it is synced.
    async fn journal(&self, layer: &Layer, write: &KeptWrite) -> Result<(), JournalError> {
        let journal = layer.journal.as_ref();
        let journal = journal.ok_or_else(|| JournalError::unavailable("there is no journal"))?;
        let lsn = loop {
            match self.kept.submit(&**journal, write) {
                Err(JournalError::Busy { .. }) => journal.room(&[write.record()]).await?,
                submitted => break submitted?,
            }
        };
        journal.wait(lsn).await?;
        self.kept.durable(&write.key, write.held.version, lsn);
        Ok(())
    }
}

/// Writes a key of a write-back class, and answers the operation.
///
/// # Errors
/// Closed; any other is the operation's answer.
pub(crate) async fn submit(
    layer: &Layer,
    back: &Back,
    key: &Key,
    class: usize,
    operation: Operation,
) -> Result<()> {
    let _under_way = back.begin(layer)?;
    let key = super::shared_key(layer, class, key);
    let mut writer = Writer::new(layer, back, class, &key);
    match operation {
        Operation::Put {
            value,
            expires_at,
            reply,
        } => {
            let value = Value {
                bytes: value,
                expires_at,
            };
            // One that went away is no concern.
            drop(reply.send(put(&mut writer, value).await));
        }
        operation => update::update(&mut writer, operation).await,
    }
    Ok(())
}

async fn put(writer: &mut Writer<'_>, value: Value) -> Result<crate::receipt::Written> {
    let change = change_of(Some(&value));
    check(writer.layer, &writer.key.key, writer.class, &change)?;
    let written = writer.write(Some(value), Expected::Any).await?;
    // It always fits.
    written.ok_or_else(write::recovering)
}

/// What a caller is told whose put failed.
fn put_failed(error: SharedError) -> Error {
    let kind = match &error {
        SharedError::Configuration { .. } => ErrorKind::Configuration,
        SharedError::NeedsGeneration { .. } => ErrorKind::Unavailable,
        error if calls::is_unsent(error) => ErrorKind::Unavailable,
        SharedError::Unavailable { .. } => ErrorKind::Unknown,
    };
    Error::new(kind, error)
}

/// Whether flushes wait for the store to come back.
fn store_is_away(layer: &Layer) -> bool {
    layer.flusher.breaker() != crate::breaker::BreakerState::Closed
}

/// Starts what works beside the callers.
pub(crate) fn spawn(layer: &Arc<Layer>) {
    let Some(back) = of(layer) else { return };
    if layer.journal.is_some() {
        layer.spawn(give_back::drive(Arc::clone(layer)));
    }
    // What is dirty of a class that is not write-back any more is flushed too.
    let is_needed = watch::covered(layer).next().is_some() || back.room.total().entries > 0;
    if !is_needed {
        return;
    }
    layer.spawn(drive::drive(Arc::clone(layer)));
    layer.spawn(watch::drive(Arc::clone(layer)));
    if let Some(journal) = &layer.journal {
        layer.spawn(upkeep::drive(Arc::clone(layer), Arc::clone(journal)));
    }
}

/// What a start does beside: the cache is given what the journal has, and is told of what was flushed past it.
///
/// # Errors
/// Unavailable if the cache or the store does not answer.
pub(crate) async fn restore(layer: &Layer, restored: crate::recover::Restored) -> Result<()> {
    let Some(back) = of(layer) else {
        return Ok(());
    };
    if watch::covered(layer).next().is_some() {
        replay::start(layer, back, restored.kept).await?;
    }
    replay::tell(layer, back, &restored.moved).await?;
    watch::look(layer, back, layer.clock.elapsed()).await;
    Ok(())
}
