//! Walking over all keys, page by page, while they change.
//!
//! Three phases, each in the order of key bytes: keys that are dirty, keys of cache-only classes, then the
//! rows of each table less those with a dirty tombstone. A key that is present all along is met: if it is
//! dirty when its turn in the first phase comes it is met there, and if it was flushed before that it is in
//! its table, which comes later. Keys may be met twice.

use crate::class::Strategy;
use crate::entry::Change;
use crate::error::Result;
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{TableId, Timestamp};

/// Pages of what is in memory are at least this long, for each costs a look at all of it.
const MEMORY_PAGE_MIN: usize = 1000;

/// Where a walk stands. The default is the start. A cursor stays good for as long as the gate is open, and
/// may be used more than once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScanCursor {
    phase: Phase,
    /// The last key met in this phase.
    after: Option<Key>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Dirty,
    CacheOnly,
    Table(usize),
}

/// The next page: keys, and where to go on; nothing at the end. A page may be empty and not be the last.
pub(crate) async fn scan(
    layer: &Layer,
    from: ScanCursor,
    limit: usize,
) -> Result<(Vec<Key>, Option<ScanCursor>)> {
    let limit = limit.max(1);
    let now = layer.clock.now();
    let (keys, last) = match from.phase {
        Phase::Dirty => page(
            dirty(layer, from.after.as_ref(), now),
            limit.max(MEMORY_PAGE_MIN),
        ),
        Phase::CacheOnly => page(
            cache_only(layer, from.after.as_ref(), now),
            limit.max(MEMORY_PAGE_MIN),
        ),
        Phase::Table(index) => {
            let Some(table) = tables(layer).get(index).copied() else {
                return Ok((vec![], None));
            };
            let rows = layer
                .store
                .scan(table, from.after.as_ref(), limit, now)
                .await?;
            let last = (rows.len() == limit).then(|| rows.last().map(|(key, _)| key.clone()));
            let keys = rows.into_iter().map(|(key, _)| key);
            let kept = keys
                .filter(|key| !is_deleted_or_elsewhere(layer, key, table))
                .collect();
            (kept, last.flatten())
        }
    };
    let next = match last {
        Some(last) => Some(ScanCursor {
            phase: from.phase,
            after: Some(last),
        }),
        None => following(layer, from.phase).map(|phase| ScanCursor { phase, after: None }),
    };
    Ok((keys, next))
}

fn following(layer: &Layer, phase: Phase) -> Option<Phase> {
    let next = match phase {
        Phase::Dirty => return Some(Phase::CacheOnly),
        Phase::CacheOnly => 0,
        Phase::Table(index) => index + 1,
    };
    (next < tables(layer).len()).then_some(Phase::Table(next))
}

/// The tables of all classes, each once.
pub(crate) fn tables(layer: &Layer) -> Vec<TableId> {
    let mut tables: Vec<TableId> = layer
        .states
        .iter()
        .filter_map(|state| state.table)
        .collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

fn page(mut keys: Vec<Key>, limit: usize) -> (Vec<Key>, Option<Key>) {
    if keys.len() <= limit {
        keys.sort_unstable();
        return (keys, None);
    }
    keys.select_nth_unstable(limit - 1);
    keys.truncate(limit);
    keys.sort_unstable();
    let last = keys.last().cloned();
    (keys, last)
}

fn is_after(key: &Key, after: Option<&Key>) -> bool {
    after.is_none_or(|after| key > after)
}

fn dirty(layer: &Layer, after: Option<&Key>, now: Timestamp) -> Vec<Key> {
    let mut keys = Vec::new();
    for lane in &layer.lanes {
        let state = lane.lock();
        let live = state.dirty.visible().filter(|(key, entry)| {
            let dead = match &entry.change {
                Change::Put { expires_at, .. } => expires_at.is_some_and(|at| at <= now),
                Change::Add { .. } => false,
                Change::Delete => true,
            };
            !dead && is_after(key, after)
        });
        keys.extend(live.map(|(key, _)| key.clone()));
    }
    keys
}

fn cache_only(layer: &Layer, after: Option<&Key>, now: Timestamp) -> Vec<Key> {
    let mut keys = Vec::new();
    if layer
        .classes
        .classes()
        .iter()
        .all(|class| class.strategy != Strategy::CacheOnly)
    {
        return keys;
    }
    layer.near.for_each(|key, copy| {
        let class = layer.class(layer.class_of(key.as_bytes()));
        if class.strategy == Strategy::CacheOnly
            && !copy.is_negative()
            && copy.expires_at().is_none_or(|at| at > now)
            && is_after(key, after)
        {
            keys.push(key.clone());
        }
    });
    keys
}

/// A row whose key has a dirty entry was met in the first phase or is deleted; one whose key belongs to a
/// class of another table is no key of this gate's.
fn is_deleted_or_elsewhere(layer: &Layer, key: &Key, table: TableId) -> bool {
    if layer.state(layer.class_of(key.as_bytes())).table != Some(table) {
        return true;
    }
    let state = layer.lane_of(key.as_bytes()).lock();
    state
        .dirty
        .get(key.as_bytes())
        .is_some_and(|entry| entry.change == Change::Delete)
}

/// The number of keys: a page walk over everything in memory, and the store's own count less what a dirty
/// entry deletes and plus what it adds.
pub(crate) async fn count(layer: &Layer) -> Result<u64> {
    let now = layer.clock.now();
    let mut total = cache_only(layer, None, now).len() as u64;
    for table in tables(layer) {
        total += layer.store.count(table, now).await?;
    }
    let limit = layer.batch_max;
    let mut entries: Vec<(Key, usize, bool)> = Vec::new();
    for lane in &layer.lanes {
        let state = lane.lock();
        entries.extend(state.dirty.visible().map(|(key, entry)| {
            let live = entry
                .change
                .to_entry(entry.version)
                .is_some_and(|e| !e.is_expired(now));
            (key.clone(), entry.class, live)
        }));
    }
    for chunk in entries.chunks(limit) {
        let rows: Vec<_> = chunk
            .iter()
            .filter_map(|(key, class, _)| Some((layer.state(*class).table?, key.clone())))
            .collect();
        let stored = layer.store.load(&rows, now).await?;
        for ((_, _, live), row) in chunk.iter().zip(stored) {
            match (live, row.is_some()) {
                (true, false) => total += 1,
                (false, true) => total = total.saturating_sub(1),
                _ => {}
            }
        }
    }
    Ok(total)
}
