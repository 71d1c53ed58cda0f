//! Taking marks away, after the callers were told: what is not taken away here is [swept](super::sweep) later, and costs
//! readers a load until then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Shared, fit};
use crate::backoff::Backoff;
use crate::layer::Layer;
use crate::port::{Release, Resolution, SharedError, SharedKey, Ticket, Token};

/// For so long releases are tried again while the cache does not answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A write whose outcome is not known.
pub(super) struct Unknown {
    pub(super) key: SharedKey,
    pub(super) token: Token,
    /// By which the store can tell, if it can.
    pub(super) ticket: Option<Ticket>,
}

/// Sends releases in the background.
pub(super) fn release_later(layer: &Arc<Layer>, releases: Vec<Release>) {
    if releases.is_empty() {
        return;
    }
    let gate = Arc::clone(layer);
    layer.spawn(async move {
        if let Some(shared) = &gate.shared {
            release(&gate, shared, releases).await;
        }
    });
}

async fn release(layer: &Layer, shared: &Shared, mut releases: Vec<Release>) {
    let counters = &shared.counters;
    counters.releases_waiting.add(releases.len() as u64);
    let until = layer.clock.elapsed().saturating_add(PATIENCE);
    let mut backoff = Backoff::default();
    loop {
        if let Some(pass) = shared.reach.pass(&*layer.clock) {
            let released = fit(shared.cache.release(&releases).await, releases.len());
            pass.tell(&released, &*layer.clock);
            let before = releases.len() as u64;
            let mut answers = released.into_iter();
            releases.retain(|_| match answers.next() {
                Some(Err(SharedError::Unavailable { .. })) => true,
                Some(Err(SharedError::NeedsGeneration { .. })) => {
                    // The mark is gone with the generation, and nothing of it will be served.
                    shared.needs.tell();
                    false
                }
                _ => false,
            });
            let done = before - releases.len() as u64;
            counters.releases.add(done);
            counters.releases_waiting.take(done);
        }
        if releases.is_empty() {
            return;
        }
        if layer.is_stopping() || layer.clock.elapsed() >= until {
            let left = releases.len() as u64;
            counters.releases_left.add(left);
            counters.releases_waiting.take(left);
            return;
        }
        layer.sleep_or_stop(backoff.next(&*layer.clock)).await;
    }
}

/// Takes the marks of writes away whose outcome the store can tell later.
pub(super) fn resolve_later(layer: &Arc<Layer>, unknown: Vec<Unknown>) {
    let mut by_ticket: BTreeMap<u64, Vec<(SharedKey, Token)>> = BTreeMap::new();
    for unknown in unknown {
        if let Some(Ticket(ticket)) = unknown.ticket {
            let marks = by_ticket.entry(ticket).or_default();
            marks.push((unknown.key, unknown.token));
        }
    }
    for (ticket, marks) in by_ticket {
        let ticket = Ticket(ticket);
        let gate = Arc::clone(layer);
        layer.spawn(async move { resolve(&gate, ticket, marks).await });
    }
}

async fn resolve(layer: &Layer, ticket: Ticket, marks: Vec<(SharedKey, Token)>) {
    let Some(shared) = &layer.shared else {
        return;
    };
    let mut backoff = Backoff::default();
    while !layer.is_stopping() {
        match layer.store.resolve(ticket).await {
            Ok(Resolution::Committed | Resolution::Aborted) => {
                // It is over, and which version it got is not known.
                if let Some(pass) = shared.reach.pass(&*layer.clock) {
                    let swept = fit(shared.cache.sweep(&marks).await, marks.len());
                    pass.tell(&swept, &*layer.clock);
                    let done = swept.iter().filter(|swept| swept.is_ok()).count();
                    shared.counters.swept.add(done as u64);
                }
                return;
            }
            // The sweeper's proof does not need to know.
            Ok(Resolution::Forgotten) => return,
            Ok(Resolution::Pending) | Err(_) => {
                layer.sleep_or_stop(backoff.next(&*layer.clock)).await;
            }
        }
    }
}
