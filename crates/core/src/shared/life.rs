//! How long what becomes clean in the shared cache may be used.

use std::time::Duration;

use crate::entry::Entry;
use crate::layer::Layer;
use crate::port::{Held, Life, Timestamp, Value};
use crate::version::Version;

/// Kept for so long where the class names no ttl: whatever went wrong unseen is over by then.
pub(super) const TTL_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// Nothing is kept for less.
const KEPT_MIN: Duration = Duration::from_millis(1);

/// The life of what a key of `class` holds: its ttl less the jitter, and past it as long as the class serves what is
/// stale; for an absent key the negative ttl. Nothing if it is not to be kept.
pub(crate) fn life(layer: &Layer, class: usize, value: Option<&Value>) -> Option<Life> {
    let class = layer.class(class);
    let ttl = class.ttl.unwrap_or(TTL_DEFAULT);
    let now = layer.clock.now();
    let Some(value) = value else {
        let ttl = ttl.min(class.negative_ttl);
        return (!ttl.is_zero()).then(|| Life {
            fresh_until: now.after(ttl),
            kept_for: ttl.max(KEPT_MIN),
        });
    };
    let fresh = layer.jittered(ttl, class.ttl_jitter);
    let kept = fresh.saturating_add(class.stale_if_error);
    // Past its own end a value is no more than an absent key.
    let left = value.expires_at.map_or(Duration::MAX, |at| at.since(now));
    Some(Life {
        fresh_until: now.after(fresh),
        kept_for: kept.min(left).max(KEPT_MIN),
    })
}

/// An entry as the shared cache holds it; nothing for an absent key.
pub(crate) fn held(entry: Option<&Entry>, version: Version) -> Held {
    Held {
        version: entry.map_or(version, |entry| entry.version),
        value: entry.map(|entry| Value {
            bytes: entry.value.clone(),
            expires_at: entry.expires_at,
        }),
    }
}

/// What the shared cache holds, as an entry; nothing for a key that is absent now.
pub(crate) fn entry(held: Held, now: Timestamp) -> Option<Entry> {
    let version = held.version;
    let entry = held.value.map(|value| Entry {
        value: value.bytes,
        expires_at: value.expires_at,
        version,
    })?;
    (!entry.is_expired(now)).then_some(entry)
}
