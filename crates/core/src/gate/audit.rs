//! Checking the layer's own bookkeeping (invariant I8: what is dirty is what is counted as dirty).

use crate::layer::{ClassState, Layer};

/// What does not add up, in words; nothing if all is well. Exact only while no write is under way.
pub(super) fn audit(layer: &Layer) -> Vec<String> {
    let mut wrong = Vec::new();
    // Entries and bytes, by class.
    let mut counted = vec![(0_u64, 0_u64); layer.states.len()];
    for (index, lane) in layer.lanes.iter().enumerate() {
        let mut state = lane.lock();
        wrong.extend(
            state
                .dirty
                .audit()
                .into_iter()
                .map(|what| format!("lane {index}: {what}")),
        );
        for (key, entry) in state.dirty.iter() {
            let (entries, bytes) = &mut counted[entry.class];
            *entries += 1;
            *bytes += entry.bytes(key);
            if layer.lane_index(key.as_bytes()) != index {
                wrong.push(format!("lane {index}: key '{key}' belongs to another lane"));
            }
        }
        for room in state.dirty.kept_rooms() {
            let of = |state: &ClassState| room.is_of(&state.budget);
            if let Some(class) = layer.states.iter().position(of) {
                counted[class].1 += room.bytes();
            }
        }
        let needed = state.journal_needed_from();
        let unsafe_entry = state.dirty.iter().find(|(_, entry)| {
            entry
                .lsn
                .is_some_and(|lsn| needed.is_none_or(|needed| lsn < needed))
        });
        if let Some((key, _)) = unsafe_entry {
            wrong.push(format!(
                "lane {index}: the journal may forget the record of key '{key}'"
            ));
        }
    }
    for ((class, state), (entries, bytes)) in layer
        .classes
        .classes()
        .iter()
        .zip(&layer.states)
        .zip(counted)
    {
        let budget = (state.budget.entries(), state.budget.bytes());
        if budget != (entries, bytes) {
            wrong.push(format!(
                "class '{}': {budget:?} dirty entries and bytes are counted, and {:?} are there",
                class.name,
                (entries, bytes)
            ));
        }
    }
    wrong
}
