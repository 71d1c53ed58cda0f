//! Asking the store which version it has of a key, also of one that is deleted: by writes that cannot apply.

use super::claims::table_of;
use crate::entry::Change;
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{Guard, Outcome, StoreError, TableId, Write};
use crate::strategy::commit;
use crate::version::Version;

/// The newest version that the store has of each key, or remembers of its deletion. Nothing is written: a guard that
/// expects the row to be of the very version the write brings is never met.
pub(super) async fn newest(
    layer: &Layer,
    keys: &[(usize, Key)],
) -> Vec<Result<Version, StoreError>> {
    // Newer than anything, so that no outcome but a conflict tells.
    let version = Version::from_raw(i64::MAX.unsigned_abs());
    let mut answers: Vec<Result<Version, StoreError>> = keys
        .iter()
        .map(|_| Err(StoreError::unavailable("the key was not asked for")))
        .collect();
    // No key stands in a batch twice.
    let mut places: Vec<(TableId, &Key, usize)> = Vec::with_capacity(keys.len());
    for (place, (class, key)) in keys.iter().enumerate() {
        places.extend(table_of(layer, *class).map(|table| (table, key, place)));
    }
    places.sort_unstable();
    let mut rows: Vec<&[(TableId, &Key, usize)]> =
        places.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).collect();
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(layer.batch_max));
        let writes = rows.iter().filter_map(|row| row.first());
        let writes = writes.map(|(table, key, _)| Write {
            table: *table,
            key: (*key).clone(),
            change: Change::Delete,
            guard: Guard::Flush {
                base: Some(version),
                version,
            },
        });
        let asked = commit::apply(&*layer.store, writes.collect(), layer.clock.now(), None).await;
        for (row, outcome) in rows.iter().zip(asked) {
            let known = match outcome {
                Ok(Outcome::Conflict { newest }) => Ok(newest),
                Ok(_) => Ok(version),
                Err(error) => Err(error),
            };
            for (_, _, place) in *row {
                answers[*place] = known.clone();
            }
        }
        rows = rest;
    }
    answers
}
