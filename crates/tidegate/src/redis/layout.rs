//! What the values of the keys look like, byte by byte.
//!
//! Numbers have their highest byte first. Byte 0 of an entry is its layout, always 1 here; byte 1 its state, whatever
//! the layout. An entry of another layout is absent if it is clean or a lease, and an error otherwise: what was
//! acknowledged is not overlooked. The scripts (`lua/entry.lua`, `lua/quarantine.lua`, `lua/dirty.lua`) read and write
//! the same.
//!
//! | state | from byte 2 on | time to live |
//! |---|---|---|
//! | `C` clean | generation 8, fresh until 8, token of who loads it anew 8, end of that lease 8, held | its own |
//! | `L` lease | generation 8, token 8 | the lease |
//! | `Q` quarantine | generation 8, tainted 1, floor 8, whether something was brought 1, its fresh until 8, its kept for 8, number of marks 4, marks of 16 (token, deadline), what was brought: held | none |
//! | `D` dirty | flags 1 (1 base is known, 2 claimed, 4 written again since), base 8, since 8, claimed version 8, written again at 8, floor 8, length 4 and text of what the store said, held | none |
//! | `P` parked | as `D` | none |
//!
//! *Held* is version 8, flags 1 (1 present, 2 its life ends), end of its life 8, and the value. Generations, versions and
//! tokens are numbers; moments are milliseconds; deadlines are microseconds of the store's clock, signed.
//!
//! The shard's own key: layout 1, generation 8, open 1, and 16 bytes that tell the server it was raised for.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidegate_core::Version;
use tidegate_core::port::{
    Got, Held, Leftover, SharedError, SharedKey, StoreTime, Timestamp, Token, Value,
};

pub(super) const LAYOUT: u8 = 1;
const HELD_HEADER: usize = 17;
const CLEAN_HEADER: usize = 34;
const DIRTY_HEADER: usize = 47;
const META_BYTES: usize = 26;

/// Which server answers: the beginnings of the ids of its run and of its history. Another after a restart, a promotion
/// or a demotion.
pub(super) type Identity = [u8; 16];

/// What the cache has of a shard's generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Meta {
    pub(super) generation: u64,
    pub(super) is_open: bool,
    pub(super) identity: Identity,
}

impl Meta {
    /// Reads it; nothing if it is of another layout.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != META_BYTES || bytes[0] != LAYOUT {
            return None;
        }
        Some(Self {
            generation: number(bytes, 1)?,
            is_open: bytes[9] == 1,
            identity: bytes[10..].try_into().ok()?,
        })
    }
}

/// The length of time, in whole milliseconds, as eight bytes; never nothing.
pub(super) fn kept_for(time: Duration) -> [u8; 8] {
    /// A hundred years: what Redis adds to its clock stays far from the end of its numbers.
    const MILLIS_MAX: u64 = 100 * 365 * 24 * 60 * 60 * 1000;
    let millis = time.as_nanos().div_ceil(1_000_000);
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    millis.clamp(1, MILLIS_MAX).to_be_bytes()
}

/// What is held, less the version.
pub(super) fn content(value: Option<&Value>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HELD_HEADER + value.map_or(0, |v| v.bytes.len()));
    put_content(&mut bytes, value);
    bytes.freeze()
}

/// All of what is held.
pub(super) fn held(held: &Held) -> Bytes {
    let length = held.value.as_ref().map_or(0, |v| v.bytes.len());
    let mut bytes = BytesMut::with_capacity(HELD_HEADER + length);
    bytes.put_u64(held.version.raw());
    put_content(&mut bytes, held.value.as_ref());
    bytes.freeze()
}

fn put_content(bytes: &mut BytesMut, value: Option<&Value>) {
    let expires_at = value.and_then(|value| value.expires_at);
    bytes.put_u8(u8::from(value.is_some()) | (u8::from(expires_at.is_some()) << 1));
    bytes.put_u64(expires_at.unwrap_or_default().as_millis());
    if let Some(value) = value {
        bytes.put_slice(&value.bytes);
    }
}

/// An entry that may be served by itself, whatever its generation.
pub(super) struct Served {
    /// Of a clean one.
    pub(super) generation: Option<u64>,
    pub(super) got: Got,
}

/// Reads an entry as far as it may be served. [`Got::Nothing`] for a lease and a quarantine.
///
/// # Errors
/// If it is of another layout and may hold what was acknowledged.
pub(super) fn served(entry: Bytes, key: &SharedKey) -> Result<Served, SharedError> {
    let nothing = Served {
        generation: None,
        got: Got::Nothing,
    };
    let state = entry.get(1).copied();
    let is_known = entry.first() == Some(&LAYOUT);
    let read = match state {
        Some(b'C') if !is_known => return Ok(nothing),
        Some(b'L' | b'Q') => return Ok(nothing),
        Some(b'C') => clean(entry),
        Some(b'D' | b'P') if is_known => dirty(entry).map(|dirty| Served {
            generation: None,
            got: match dirty.said {
                Some(_) => Got::Parked(dirty.held),
                None => Got::Dirty(dirty.held),
            },
        }),
        _ => None,
    };
    read.ok_or_else(|| unknown_layout(key))
}

fn clean(entry: Bytes) -> Option<Served> {
    Some(Served {
        generation: number(&entry, 2),
        got: Got::Clean {
            fresh_until: Timestamp::from_millis(number(&entry, 10)?),
            held: read_held(entry, CLEAN_HEADER)?,
        },
    })
}

/// A dirty or parked entry.
pub(super) struct DirtyEntry {
    pub(super) held: Held,
    pub(super) base: Option<Version>,
    pub(super) since: Timestamp,
    /// What the store said of a parked one.
    pub(super) said: Option<Arc<str>>,
}

/// Reads a dirty or parked entry of the known layout.
pub(super) fn dirty(entry: Bytes) -> Option<DirtyEntry> {
    if entry.first() != Some(&LAYOUT) || entry.len() < DIRTY_HEADER {
        return None;
    }
    let is_parked = match entry[1] {
        b'D' => false,
        b'P' => true,
        _ => return None,
    };
    let length = u32::from_be_bytes(entry.get(43..47)?.try_into().ok()?);
    let end = DIRTY_HEADER.checked_add(usize::try_from(length).ok()?)?;
    let said = String::from_utf8_lossy(entry.get(DIRTY_HEADER..end)?).into();
    Some(DirtyEntry {
        base: (entry[2] & 1 == 1)
            .then(|| number(&entry, 3).map(Version::from_raw))
            .flatten(),
        since: Timestamp::from_millis(number(&entry, 11)?),
        said: is_parked.then_some(said),
        held: read_held(entry, end)?,
    })
}

fn read_held(mut entry: Bytes, at: usize) -> Option<Held> {
    let version = Version::from_raw(number(&entry, at)?);
    let flags = *entry.get(at + 8)?;
    let end = Timestamp::from_millis(number(&entry, at + 9)?);
    let is_present = flags & 1 == 1;
    let value = is_present.then(|| {
        // Shares the buffer of the answer.
        entry.advance(at + HELD_HEADER);
        Value {
            bytes: entry,
            expires_at: (flags & 2 == 2).then_some(end),
        }
    });
    Some(Held { version, value })
}

/// A mark of the index: generation, token, deadline, name.
pub(super) fn mark(
    member: &[u8],
    read_name: impl FnOnce(&[u8]) -> Option<SharedKey>,
) -> Option<Leftover> {
    Some(Leftover {
        token: Token(number(member, 8)?),
        commit_by: StoreTime::from_micros(number(member, 16)?.cast_signed()),
        key: read_name(member.get(24..)?)?,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// An entry that another version of tidegate wrote.
pub(super) fn unknown_layout(key: &SharedKey) -> SharedError {
    SharedError::configuration(format_args!(
        "the shared cache has key {} of class '{}' in a form this version of tidegate does not know: let all nodes run \
         one version, or give them another prefix",
        key.key, key.class
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SharedKey {
        SharedKey {
            class: "session".into(),
            key: "a".into(),
        }
    }

    fn sample(value: Option<Value>) -> Held {
        Held {
            version: Version::compose(3, 7),
            value,
        }
    }

    fn clean_entry(layout: u8, held: &Held) -> Bytes {
        let mut entry = BytesMut::new();
        entry.put_slice(&[layout, b'C']);
        entry.put_u64(9);
        entry.put_u64(1234);
        entry.put_slice(&[0; 16]);
        entry.put_slice(&super::held(held));
        entry.freeze()
    }

    #[test]
    fn what_is_held_comes_back() {
        let values = [
            None,
            Some(Value {
                bytes: Bytes::new(),
                expires_at: None,
            }),
            Some(Value {
                bytes: Bytes::from_static(b"\0\r\n\xff"),
                expires_at: Some(Timestamp::from_millis(u64::MAX)),
            }),
        ];
        for value in values {
            let held = sample(value);
            let served = served(clean_entry(LAYOUT, &held), &key()).unwrap();
            assert_eq!(served.generation, Some(9));
            let fresh_until = Timestamp::from_millis(1234);
            assert_eq!(served.got, Got::Clean { held, fresh_until });
        }
    }

    #[test]
    fn another_layout_is_absent_only_where_nothing_was_acknowledged() {
        let clean = clean_entry(2, &sample(None));
        assert_eq!(served(clean, &key()).unwrap().got, Got::Nothing);
        for entry in [&b"\x02D"[..], b"\x02P....", b"\x01Z", b"", b"\x01"] {
            let refused = served(Bytes::from_static(entry), &key()).err();
            assert!(
                matches!(refused, Some(SharedError::Configuration { .. })),
                "{entry:?}"
            );
        }
    }

    #[test]
    fn what_was_cut_off_is_no_entry() {
        let whole = clean_entry(LAYOUT, &sample(None));
        for end in 2..whole.len() {
            assert!(served(whole.slice(..end), &key()).is_err(), "{end}");
        }
        assert_eq!(Meta::read(&[LAYOUT; META_BYTES - 1]), None);
        assert_eq!(Meta::read(&[2; META_BYTES]), None);
    }

    #[test]
    fn a_time_to_live_is_never_nothing() {
        assert_eq!(kept_for(Duration::ZERO), 1u64.to_be_bytes());
        assert_eq!(kept_for(Duration::from_micros(1500)), 2u64.to_be_bytes());
        assert!(u64::from_be_bytes(kept_for(Duration::MAX)) < 1 << 53);
    }
}
