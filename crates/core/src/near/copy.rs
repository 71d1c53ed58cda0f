//! A cached copy of a key's state, and how long it may be used.

use std::time::Duration;

use bytes::Bytes;

use crate::entry::Entry;
use crate::port::Timestamp;
use crate::version::Version;

/// What the near cache holds of a key: its entry, or the knowledge that it is absent (negative).
///
/// Both limits are zero where there is none, so that the common copy is checked without reading a clock.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    value: Option<Bytes>,
    version: Version,
    /// The end of the data's life, in milliseconds since the epoch.
    expires_at: u64,
    /// The end of the copy's use, in milliseconds of [`Clock::elapsed`](crate::port::Clock::elapsed).
    fresh_until: u64,
}

/// How much a copy is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    /// May be served.
    Fresh,
    /// Past its ttl by so much: may be served only while the store cannot be read.
    Stale(Duration),
    /// The data is dead: the key is absent.
    Expired,
}

impl Copy {
    /// A copy to be used until `fresh_until` (elapsed time), or without limit. `version` is that of the
    /// absence where there is no entry.
    pub(crate) fn of(
        entry: Option<&Entry>,
        version: Version,
        fresh_until: Option<Duration>,
    ) -> Self {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
        Self {
            value: entry.map(|entry| entry.value.clone()),
            version: entry.map_or(version, |entry| entry.version),
            expires_at: entry
                .and_then(|entry| entry.expires_at)
                .map_or(0, |at| at.as_millis().max(1)),
            fresh_until: fresh_until.map_or(0, millis),
        }
    }

    /// True if the copy has no limit to check.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.expires_at | self.fresh_until == 0
    }

    pub(crate) fn freshness(&self, now: Timestamp, elapsed: Duration) -> Freshness {
        if self.expires_at != 0 && self.expires_at <= now.as_millis() {
            return Freshness::Expired;
        }
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if self.fresh_until != 0 && self.fresh_until <= elapsed {
            return Freshness::Stale(Duration::from_millis(elapsed - self.fresh_until));
        }
        Freshness::Fresh
    }

    /// How long the copy may still be used, if that is limited.
    pub(crate) fn fresh_for(&self, elapsed: Duration) -> Option<Duration> {
        (self.fresh_until != 0)
            .then(|| Duration::from_millis(self.fresh_until).saturating_sub(elapsed))
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        (self.expires_at != 0).then(|| Timestamp::from_millis(self.expires_at))
    }

    pub(crate) fn value_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.value.is_none()
    }

    /// The entry, or nothing for a negative copy.
    pub(crate) fn into_entry(self) -> Option<Entry> {
        let expires_at = self.expires_at();
        self.value.map(|value| Entry {
            value,
            expires_at,
            version: self.version,
        })
    }
}
