//! The meaning of a journal record: one write of one key, a dead letter, a discard, or a checkpoint. The
//! journal knows only its bytes.
//!
//! Little-endian. All begin with the format (1 byte; 2 is written, 1 is read too) and the kind (1 byte).
//! Texts are a length and UTF-8. A write (kinds 1 put, 2 delete, 4 addition) goes on with:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | version |
//! | 8 | base: the version it was written over, 0 if that is not known (not in format 1) |
//! | 8 | end of the data's life in ms since the epoch, 0 for none |
//! | 2 + n | class name |
//! | 4 + n | key |
//! | rest | value; before it of an addition what is added (8 bytes, signed) and the version of the first of the additions that the record stands for (8) |
//!
//! A dead letter has the kind of its write plus 128 and, between key and value:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | reason: 1 refused, 2 conflict |
//! | 4 | attempts |
//! | 8 | first refused, in ms since the epoch |
//! | 8 | last refused |
//! | 2 + n | the store's code, empty for none |
//! | 2 + n | message |
//!
//! A discard is the kind 5, the version (8), and the key to the end. A checkpoint is the kind 3 and the place
//! (8) before which no record is needed any more.
//!
//! A base of "absent" is the largest number, for 0 says that it is not known. Of two records of one key and
//! version the later one counts: a dead letter takes the place of its write, and either may have been copied
//! to the end to let older records go. The record names its class and not a table or a number, because a
//! configuration may move or reorder those between two starts.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::dead_letters::{DeadLetterReason, Refusal};
use crate::entry::Change;
use crate::key::Key;
use crate::lane::{DirtyEntry, Over};
use crate::port::{Lsn, Timestamp};
use crate::version::Version;

const FORMAT: u8 = 2;
/// The same without a base, and without dead letters and discards.
const FORMAT_FIRST: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const CHECKPOINT: u8 = 3;
const ADD: u8 = 4;
const DISCARDED: u8 = 5;
/// Added to the kind of a write that is a dead letter.
const PARKED: u8 = 128;
const REFUSED: u8 = 1;
const CONFLICT: u8 = 2;
/// The base of a write that was made over nothing.
const BASE_ABSENT: u64 = u64::MAX;
const FIXED_BYTES: usize = 1 + 1 + 8 + 8 + 8 + 2 + 4;
const LETTER_FIXED_BYTES: usize = 1 + 4 + 8 + 8 + 2 + 2;

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Write(WriteRecord),
    /// The dead letter of this key and version was given up.
    Discarded(Key, Version),
    /// Records before this place are in the store, superseded, or of no use.
    Checkpoint(Lsn),
}

/// A write as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WriteRecord {
    pub(crate) class: String,
    pub(crate) key: Key,
    pub(crate) version: Version,
    /// What it was written over, if that is known; [`Version::NONE`] if it was nothing.
    pub(crate) base: Option<Version>,
    /// What the key holds after it.
    pub(crate) change: Change,
    /// What is added and the version of the first addition it stands for, if it is nothing but additions.
    pub(crate) added: Option<(i64, Version)>,
    /// Why it is a dead letter, if it is one.
    pub(crate) refusal: Option<Refusal>,
}

/// A write to be put into the journal.
#[derive(Clone, Copy)]
struct Written<'a> {
    class: &'a str,
    key: &'a Key,
    version: Version,
    base: Option<Version>,
    change: &'a Change,
    added: Option<(i64, Version)>,
    refusal: Option<&'a Refusal>,
}

impl Record {
    /// The bytes of a checkpoint.
    pub(crate) fn encode_checkpoint(needed_from: Lsn) -> Bytes {
        let mut out = BytesMut::with_capacity(10);
        out.put_u8(FORMAT);
        out.put_u8(CHECKPOINT);
        out.put_u64_le(needed_from.0);
        out.freeze()
    }

    /// The bytes of a discard.
    pub(crate) fn encode_discarded(key: &Key, version: Version) -> Bytes {
        let mut out = BytesMut::with_capacity(10 + key.len());
        out.put_u8(FORMAT);
        out.put_u8(DISCARDED);
        out.put_u64_le(version.raw());
        out.put_slice(key.as_bytes());
        out.freeze()
    }

    /// The bytes of a write that was made over nobody knows what.
    pub(crate) fn encode(class: &str, key: &Key, version: Version, change: &Change) -> Bytes {
        Self::encode_over(class, key, version, Over::default(), change)
    }

    /// The bytes of a write.
    pub(crate) fn encode_over(
        class: &str,
        key: &Key,
        version: Version,
        over: Over,
        change: &Change,
    ) -> Bytes {
        encode(Written {
            class,
            key,
            version,
            base: over.base,
            change,
            added: over.added.map(|by| (by, version)),
            refusal: None,
        })
    }

    /// The bytes of a write that lost against a row of somebody else.
    pub(crate) fn encode_lost(
        class: &str,
        key: &Key,
        version: Version,
        base: Option<Version>,
        (change, refusal): (&Change, &Refusal),
    ) -> Bytes {
        encode(Written {
            class,
            key,
            version,
            base,
            change,
            added: None,
            refusal: Some(refusal),
        })
    }

    /// The bytes of a dirty entry.
    pub(crate) fn encode_entry(class: &str, key: &Key, entry: &DirtyEntry) -> Bytes {
        encode(written(class, key, entry, None))
    }

    /// The bytes of a dead letter.
    pub(crate) fn encode_parked(
        class: &str,
        key: &Key,
        entry: &DirtyEntry,
        refusal: &Refusal,
    ) -> Bytes {
        encode(written(class, key, entry, Some(refusal)))
    }

    /// Reads a record; nothing if the bytes are none.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let format = bytes.try_get_u8().ok()?;
        if format != FORMAT && format != FORMAT_FIRST {
            return None;
        }
        let kind = bytes.try_get_u8().ok()?;
        match kind {
            CHECKPOINT => {
                let needed_from = Lsn(bytes.try_get_u64_le().ok()?);
                bytes.is_empty().then_some(Self::Checkpoint(needed_from))
            }
            DISCARDED if format == FORMAT => {
                let version = Version::from_raw(bytes.try_get_u64_le().ok()?);
                Some(Self::Discarded(Key::copy_from(&bytes), version))
            }
            _ => decode_write(format, kind, bytes).map(Self::Write),
        }
    }
}

fn written<'a>(
    class: &'a str,
    key: &'a Key,
    entry: &'a DirtyEntry,
    refusal: Option<&'a Refusal>,
) -> Written<'a> {
    let sum = entry.lineage.as_one(refusal.is_some());
    Written {
        class,
        key,
        version: entry.version,
        base: entry.lineage.base(),
        change: &entry.change,
        added: sum.map(|sum| (sum.by, sum.since)),
        refusal,
    }
}

fn encode(write: Written<'_>) -> Bytes {
    let letter_bytes = write.refusal.map_or(0, |refusal| {
        LETTER_FIXED_BYTES + refusal.code.as_deref().map_or(0, str::len) + refusal.message.len()
    });
    let mut out = BytesMut::with_capacity(
        FIXED_BYTES
            + write.class.len()
            + write.key.len()
            + letter_bytes
            + write.change.value_bytes()
            + 16,
    );
    let (kind, expires_at) = match (write.change, write.added) {
        (Change::Put { expires_at, .. }, None) => (PUT, *expires_at),
        (Change::Put { expires_at, .. }, Some(_)) => (ADD, *expires_at),
        // An addition is always shown as what it comes to.
        (Change::Add { .. } | Change::Delete, _) => (DELETE, None),
    };
    out.put_u8(FORMAT);
    out.put_u8(kind | write.refusal.map_or(0, |_| PARKED));
    out.put_u64_le(write.version.raw());
    out.put_u64_le(match write.base {
        None => 0,
        Some(Version::NONE) => BASE_ABSENT,
        Some(base) => base.raw(),
    });
    out.put_u64_le(expires_at.map_or(0, Timestamp::as_millis));
    put_text(&mut out, write.class);
    // Keys are bounded far below this width when they are taken.
    out.put_u32_le(u32::try_from(write.key.len()).unwrap_or(u32::MAX));
    out.put_slice(write.key.as_bytes());
    if let Some(refusal) = write.refusal {
        out.put_u8(match refusal.reason {
            DeadLetterReason::Refused => REFUSED,
            DeadLetterReason::Conflict => CONFLICT,
        });
        out.put_u32_le(refusal.attempts);
        out.put_u64_le(refusal.first_at.as_millis());
        out.put_u64_le(refusal.last_at.as_millis());
        put_text(&mut out, refusal.code.as_deref().unwrap_or_default());
        put_text(&mut out, &refusal.message);
    }
    if let Change::Put { value, .. } = write.change {
        if let Some((by, since)) = write.added {
            out.put_i64_le(by);
            out.put_u64_le(since.raw());
        }
        out.put_slice(value);
    }
    out.freeze()
}

/// Class names, codes and messages are bounded far below this width when they are taken.
fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16_le(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn decode_write(format: u8, kind: u8, mut bytes: Bytes) -> Option<WriteRecord> {
    let version = Version::from_raw(bytes.try_get_u64_le().ok()?);
    let base = match format {
        FORMAT_FIRST => None,
        _ => match bytes.try_get_u64_le().ok()? {
            0 => None,
            BASE_ABSENT => Some(Version::NONE),
            base => Some(Version::from_raw(base)),
        },
    };
    let expires_at = bytes.try_get_u64_le().ok()?;
    let class = take_text(&mut bytes)?;
    let key_len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    let key = Key::copy_from(&take(&mut bytes, key_len)?);
    let refusal = match kind & PARKED {
        0 => None,
        _ if format == FORMAT_FIRST => return None,
        _ => Some(take_refusal(&mut bytes)?),
    };
    let kind = kind & !PARKED;
    let added = match kind {
        ADD => {
            let by = bytes.try_get_i64_le().ok()?;
            Some((by, Version::from_raw(bytes.try_get_u64_le().ok()?)))
        }
        _ => None,
    };
    let change = match kind {
        PUT | ADD => Change::Put {
            value: bytes,
            expires_at: (expires_at != 0).then(|| Timestamp::from_millis(expires_at)),
        },
        DELETE if bytes.is_empty() => Change::Delete,
        _ => return None,
    };
    Some(WriteRecord {
        class,
        key,
        version,
        base,
        change,
        added,
        refusal,
    })
}

fn take_refusal(bytes: &mut Bytes) -> Option<Refusal> {
    let reason = match bytes.try_get_u8().ok()? {
        REFUSED => DeadLetterReason::Refused,
        CONFLICT => DeadLetterReason::Conflict,
        _ => return None,
    };
    let attempts = bytes.try_get_u32_le().ok()?;
    let first_at = Timestamp::from_millis(bytes.try_get_u64_le().ok()?);
    let last_at = Timestamp::from_millis(bytes.try_get_u64_le().ok()?);
    let code = take_text(bytes)?;
    let message = take_text(bytes)?;
    Some(Refusal {
        reason,
        code: (!code.is_empty()).then(|| code.into()),
        message: message.into(),
        attempts,
        first_at,
        last_at,
    })
}

fn take_text(bytes: &mut Bytes) -> Option<String> {
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    String::from_utf8(take(bytes, len)?.to_vec()).ok()
}

fn take(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (bytes.len() >= len).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests;
