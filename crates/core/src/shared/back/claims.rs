//! Claimed entries as writes to the store.
//!
//! A write that lost against a row of somebody else is kept as a dead letter under another class name, so that
//! readers of its key get the row as they get any other ([`meet`](super::meet)); and a node that starts raises the
//! versions of a shard with an entry of a class of no keys ([`replay`](super::replay)). Both are told by names
//! that no class may have over a shared cache.

use std::collections::HashSet;
use std::sync::Arc;

use super::kept::change_of;
use crate::entry::Change;
use crate::layer::Layer;
use crate::port::{Claimed, ENTRY_OVERHEAD_BYTES, Guard, SharedKey, TableId, Timestamp, Write};
use crate::version::Version;

/// Follows the name of the class of a write that lost.
pub(super) const LOST: &str = "--lost";
/// The class of entries that stand for no key.
pub(super) const FLOOR: &str = "--floor";

/// A claimed entry.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// As the cache names it.
    pub(super) key: SharedKey,
    pub(super) class: usize,
    /// It lost against another's row before.
    pub(super) is_lost: bool,
    pub(super) table: TableId,
    pub(super) change: Change,
    pub(super) version: Version,
    pub(super) base: Option<Version>,
    pub(super) since: Timestamp,
}

/// What a claimed entry is.
pub(super) enum Found {
    Claim(Claim),
    /// It stands for no key.
    Floor,
    /// Its class is not here, or has no store.
    Strange,
}

impl Claim {
    pub(super) fn found(layer: &Layer, claimed: Claimed) -> Found {
        if &*claimed.key.class == FLOOR {
            return Found::Floor;
        }
        let (class, is_lost) = class_of(layer, &claimed.key);
        let Some((class, table)) = class.and_then(|class| Some((class, table_of(layer, class)?)))
        else {
            return Found::Strange;
        };
        Found::Claim(Self {
            class,
            is_lost,
            table,
            change: change_of(claimed.held.value.as_ref()),
            version: claimed.held.version,
            base: claimed.base,
            since: claimed.since,
            key: claimed.key,
        })
    }

    pub(super) fn write(&self) -> Write {
        Write {
            table: self.table,
            key: self.key.key.clone(),
            change: self.change.clone(),
            guard: Guard::Flush {
                base: self.base,
                version: self.version,
            },
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let value = self.change.value_bytes() as u64;
        ENTRY_OVERHEAD_BYTES + self.key.key.len() as u64 + value
    }
}

/// The class of an entry of the cache, if it is here, and whether the entry is a write that lost.
pub(super) fn class_of(layer: &Layer, key: &SharedKey) -> (Option<usize>, bool) {
    let (name, is_lost) = match key.class.strip_suffix(LOST) {
        Some(name) => (name, true),
        None => (&*key.class, false),
    };
    let class = layer.states.iter().position(|state| &*state.name == name);
    (class, is_lost)
}

pub(super) fn table_of(layer: &Layer, class: usize) -> Option<TableId> {
    layer.state(class).table
}

/// Where a write of this key is kept that lost.
pub(super) fn lost(key: &SharedKey) -> SharedKey {
    SharedKey {
        class: Arc::from(format!("{}{LOST}", key.class)),
        key: key.key.clone(),
    }
}

/// The claims as batches of at most so many rows and about so many bytes, in none of which a row stands twice.
pub(super) fn batches(claims: Vec<Claim>, rows_max: usize, bytes_max: u64) -> Vec<Vec<Claim>> {
    let mut batches: Vec<Vec<Claim>> = Vec::new();
    let mut waiting = claims;
    while !waiting.is_empty() {
        let (mut batch, mut bytes, mut rows) = (Vec::new(), 0, HashSet::new());
        let mut rest = Vec::new();
        for claim in waiting {
            let is_full = batch.len() >= rows_max.max(1) || (bytes > 0 && bytes >= bytes_max);
            if is_full || !rows.insert((claim.table, claim.key.key.clone())) {
                rest.push(claim);
                continue;
            }
            bytes += claim.bytes();
            batch.push(claim);
        }
        batches.push(batch);
        waiting = rest;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn claim(key: &str, is_lost: bool, bytes: usize) -> Claim {
        let of = SharedKey {
            class: "b".into(),
            key: Key::from(key),
        };
        Claim {
            key: if is_lost { lost(&of) } else { of },
            class: 0,
            is_lost,
            table: TableId(0),
            change: Change::Put {
                value: vec![0; bytes].into(),
                expires_at: None,
            },
            version: Version::from_raw(2),
            base: None,
            since: Timestamp::default(),
        }
    }

    #[test]
    fn a_batch_has_its_bounds_and_no_row_twice() {
        let claims = vec![
            claim("1", false, 0),
            claim("1", true, 0),
            claim("2", false, 1000),
            claim("3", false, 1000),
            claim("4", false, 0),
        ];
        let sizes = |rows, bytes| -> Vec<usize> {
            let batches = batches(claims.clone(), rows, bytes);
            batches.iter().map(Vec::len).collect()
        };
        assert_eq!(
            sizes(10, 1 << 20),
            [4, 1],
            "the row of the lost one is there already"
        );
        assert_eq!(sizes(2, 1 << 20), [2, 2, 1]);
        assert_eq!(sizes(10, 1000), [2, 2, 1]);
    }
}
