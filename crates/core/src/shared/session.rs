//! What a client has seen, wherever it goes on: the token of the session guarantees (read your writes, monotonic reads;
//! Terry et al., Session Guarantees for Weakly Consistent Replicated Data, 1994).
//!
//! Versions of one key rise in the order of its writes; those of two keys say nothing of each other. So the newest
//! version seen is remembered for each key, and of keys whose hash is the same the greater counts for both: a read that
//! is asked for more than the client has seen is answered by the shared cache, which is never behind.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::receipt::Receipt;
use crate::version::Version;

/// So many keys are told apart.
const SLOTS: u32 = 1024;

/// What one client has seen. Its text is its token, to be taken to another node.
///
/// ```
/// # use tidegate_core::Session;
/// let session = Session::default();
/// let token = session.to_string();
/// assert_eq!(token.parse::<Session>().unwrap(), session);
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Session {
    seen: BTreeMap<u16, Version>,
}

/// Newer than all: of what was seen it is not known how new it is.
const UNKNOWN: Version = Version::from_raw(u64::MAX);

impl Session {
    /// The client was given this answer to a read or a write of `key`.
    pub fn saw(&mut self, key: &[u8], receipt: &Receipt) {
        let version = match receipt.version {
            // Absent, nobody knows since which write: no copy is known to be as new.
            Version::NONE => UNKNOWN,
            version => version,
        };
        let seen = self.seen.entry(slot(key)).or_default();
        *seen = version.max(*seen);
    }

    /// The client made a write of `key` of which it does not know what became.
    pub fn lost(&mut self, key: &[u8]) {
        self.seen.insert(slot(key), UNKNOWN);
    }

    /// The least version of `key` that the client may be given.
    pub(crate) fn least(&self, key: &[u8]) -> Version {
        self.seen.get(&slot(key)).copied().unwrap_or_default()
    }
}

fn slot(key: &[u8]) -> u16 {
    u16::try_from(crc32fast::hash(key) % SLOTS).unwrap_or(0)
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (slot, version) in &self.seen {
            if !text.is_empty() {
                text.push('.');
            }
            write!(text, "{slot:x}-{:x}", version.raw())?;
        }
        f.write_str(if text.is_empty() { "0" } else { &text })
    }
}

impl FromStr for Session {
    type Err = Error;

    fn from_str(token: &str) -> Result<Self> {
        let wrong = || Error::invalid("this is no token of a session");
        let mut session = Self::default();
        if token == "0" {
            return Ok(session);
        }
        for part in token.split('.') {
            let (slot, version) = part.split_once('-').ok_or_else(wrong)?;
            let slot = u16::from_str_radix(slot, 16).map_err(|_| wrong())?;
            let version = u64::from_str_radix(version, 16).map_err(|_| wrong())?;
            if u32::from(slot) >= SLOTS {
                return Err(wrong());
            }
            let seen = session.seen.entry(slot).or_default();
            *seen = Version::from_raw(version).max(*seen);
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::receipt::{Durability, Source};

    fn receipt(version: u64) -> Receipt {
        Receipt {
            version: Version::from_raw(version),
            source: Source::Store,
            age_bound: Duration::ZERO,
            durability: Durability::Store,
        }
    }

    #[test]
    fn what_was_seen_only_grows_and_survives_its_token() {
        let mut session = Session::default();
        assert_eq!(session.least(b"a"), Version::NONE);
        session.saw(b"a", &receipt(8));
        session.saw(b"a", &receipt(6));
        session.saw(b"b", &receipt(0));
        session.lost(b"c");
        assert_eq!(session.least(b"a"), Version::from_raw(8));
        assert_eq!(session.least(b"b"), UNKNOWN);
        assert_eq!(session.least(b"c"), UNKNOWN);
        let again: Session = session.to_string().parse().unwrap();
        assert_eq!(again, session);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for token in [
            "",
            "x",
            "1",
            "1-",
            "-1",
            "400-1",
            "1-1.",
            "1-11111111111111111",
        ] {
            assert!(token.parse::<Session>().is_err(), "{token}");
        }
    }
}
