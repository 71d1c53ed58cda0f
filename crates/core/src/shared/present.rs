//! The present state of keys for writes that depend on it: what the shared cache may serve, and the store for the rest.
//!
//! What was found only decides what is written; that nobody changed the row meanwhile is the store's to say, by the
//! guard of the write. A write that leaves its key as it is takes place at the moment of this look.

use super::read::{Looked, looked};
use super::{Shared, fit, shared_key};
use crate::entry::Entry;
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{Got, SharedError, SharedKey, StoreError};
use crate::read::load_apart;

/// Answers in the order of `keys`, each with whether what is cached of it is to be trusted: what was found outdated by
/// the store is not trusted again.
pub(crate) async fn find(
    layer: &Layer,
    shared: &Shared,
    keys: &[(Key, usize, bool)],
) -> Vec<Result<Option<Entry>, StoreError>> {
    let mut found: Vec<Option<Option<Entry>>> = vec![None; keys.len()];
    let trusted: Vec<usize> = (0..keys.len()).filter(|place| keys[*place].2).collect();
    let named: Vec<SharedKey> = trusted
        .iter()
        .map(|place| shared_key(layer, keys[*place].1, &keys[*place].0))
        .collect();
    if !named.is_empty()
        && let Some(pass) = shared.reach.pass(&*layer.clock)
    {
        let got = fit(shared.cache.get(&named).await, named.len());
        pass.tell(&got, &*layer.clock);
        for (place, got) in trusted.into_iter().zip(got) {
            match got {
                Ok(got @ Got::Clean { .. }) => {
                    if let Looked::Fresh(read) = looked(layer, keys[place].1, got) {
                        found[place] = Some(read.entry);
                    }
                }
                Err(SharedError::NeedsGeneration { .. }) => shared.needs.tell(),
                Ok(_) | Err(_) => {}
            }
        }
    }
    let missing: Vec<(Key, usize)> = keys
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|((key, class, _), _)| (key.clone(), *class))
        .collect();
    let loaded = match missing.is_empty() {
        true => Vec::new(),
        false => load_apart(layer, &missing).await,
    };
    let mut loaded = loaded.into_iter();
    let unanswered = || Err(StoreError::unavailable("the key was not asked for"));
    found
        .into_iter()
        .map(|found| match found {
            Some(entry) => Ok(entry),
            None => loaded.next().unwrap_or_else(unanswered),
        })
        .collect()
}
