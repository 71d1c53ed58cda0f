//! Cache-only: no store behind it; what is evicted or expires is gone.
//!
//! - What the caller is told: acknowledged means that the near cache has it.
//! - When: at once; a write waits for nothing.
//! - What a crash costs: everything.

use crate::error::{Error, Result};
use crate::key::Key;
use crate::lane::{Operation, Present, fold};
use crate::layer::Layer;
use crate::near::{Copy, Freshness};
use crate::receipt::{Durability, Receipt, Source, Written};
use crate::version::Version;

/// Applies one operation under the lane's lock and answers it.
pub(crate) fn write(layer: &Layer, key: &Key, class: usize, operation: Operation) -> Result<()> {
    if layer.is_closing() {
        return Err(Error::closed());
    }
    let now = layer.clock.now();
    let lane = layer.lane_of(key.as_bytes());
    let state = lane.lock();
    let present = layer
        .near
        .peek(key.as_bytes())
        .filter(|copy| copy.freshness(now, layer.clock.elapsed()) == Freshness::Fresh)
        .and_then(Copy::into_entry);
    let mut version = present
        .as_ref()
        .map_or(Version::NONE, |entry| entry.version);
    let mut operations = vec![operation];
    let folded = fold(&mut operations, &Present::Known(present), now);
    if let Some(change) = &folded.change {
        if !layer.near.has_room_for(key, change.value_bytes()) {
            return Err(Error::invalid(format_args!(
                "the value has {} bytes, which is more than the near cache can hold of one key",
                change.value_bytes()
            )));
        }
        version = layer.issue();
        match change
            .to_entry(version)
            .filter(|entry| !entry.is_expired(now))
        {
            Some(entry) => layer.fill(key, class, Some(&entry), version),
            None => drop(layer.near.remove(key.as_bytes())),
        }
    }
    drop(state);
    let receipt = Receipt {
        version,
        source: Source::Near,
        age_bound: std::time::Duration::ZERO,
        durability: Durability::Memory,
    };
    for (operation, existed) in operations.into_iter().zip(folded.existed) {
        operation.answer(Ok(Written {
            existed: existed.unwrap_or(false),
            receipt,
        }));
    }
    Ok(())
}
