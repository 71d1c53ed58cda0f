//! Writes that pass by all nodes: what others change in a table is read from the store's outbox, and told to the shared
//! cache. Every node does it: what is told twice does no harm, and no node is missed when it dies.

use std::sync::Arc;
use std::time::Duration;

use super::release::PATIENCE;
use super::{Shared, covers, fit, many_nodes, shared_key};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Layer;
use crate::port::{Outside, OutsideCursor, SharedError, SharedKey};
use crate::version::Version;

/// Changes that are read at once.
const LIMIT: usize = 1000;

/// Whether any table has an outbox to read.
pub(super) fn is_watched(layer: &Layer) -> bool {
    layer
        .classes
        .classes()
        .iter()
        .any(|class| covers(class.strategy) && class.table.outbox)
}

/// Reads the outbox until the layer stops.
pub(super) async fn drive(layer: Arc<Layer>) {
    let Some(shared) = &layer.shared else {
        return;
    };
    // What was changed while no node was up is told first.
    let mut cursor = None;
    let mut again_at = None;
    let mut backoff = Backoff::default();
    while !layer.is_stopping() {
        if again_at.is_some_and(|at| at <= layer.clock.elapsed())
            && shared.clear(&layer).await.is_ok()
        {
            again_at = None;
        }
        let wait = match poll(&layer, shared, &mut cursor, &mut again_at).await {
            Ok(true) => continue,
            Ok(false) => {
                backoff.reset();
                layer.jittered(shared.settings.outside_poll, 0.25)
            }
            Err(error) => {
                tracing::warn!(%error, "what others changed in the store could not be told to the shared cache");
                backoff.next(&*layer.clock)
            }
        };
        layer.sleep_or_stop(wait).await;
    }
}

/// Tells the cache what is new. True if there is more. The cursor moves when the cache knows.
async fn poll(
    layer: &Layer,
    shared: &Shared,
    cursor: &mut Option<OutsideCursor>,
    again_at: &mut Option<Duration>,
) -> Result<bool> {
    let outside = many_nodes(&*layer.store)?
        .outside_changes(*cursor, LIMIT)
        .await?;
    // Of a table that was changed as a whole the keys are not known, nor where they are.
    let of_all = outside.changes.iter().any(|change| change.key.is_none());
    if outside.missed || of_all {
        tracing::warn!(
            "a whole table was changed by others, or what they changed was not read in time: nothing that is cached \
             is served any more"
        );
        shared.clear(layer).await?;
        // A write that was committed before that may still be released after it.
        let released_by = shared.settings.mark_timeout.saturating_add(PATIENCE);
        *again_at = Some(layer.clock.elapsed().saturating_add(released_by));
    }
    tell(layer, shared, &outside).await?;
    *cursor = Some(outside.next);
    shared
        .counters
        .outside_changes
        .add(outside.changes.len() as u64);
    shared.counters.outside_lag.set(micros(outside.lag));
    Ok(outside.more)
}

fn micros(lag: Duration) -> u64 {
    u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)
}

async fn tell(layer: &Layer, shared: &Shared, outside: &Outside) -> Result<()> {
    let changed: Vec<(SharedKey, Version)> = outside
        .changes
        .iter()
        .filter_map(|change| {
            let key = change.key.as_ref()?;
            let class = layer.class_of(key.as_bytes());
            let is_its = layer.state(class).table == Some(change.table);
            is_its.then(|| (shared_key(layer, class, key), change.version))
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let pass = shared.reach.pass(&*layer.clock).ok_or_else(super::away)?;
    let told = fit(shared.cache.invalidate(&changed).await, changed.len());
    pass.tell(&told, &*layer.clock);
    for told in told {
        match told {
            // Nothing of it may be served, and the next generation begins with nothing.
            Ok(()) | Err(SharedError::NeedsGeneration { .. }) => {}
            Err(error) => return Err(Error::new(ErrorKind::Unavailable, error)),
        }
    }
    Ok(())
}
