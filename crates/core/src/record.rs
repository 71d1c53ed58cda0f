//! The meaning of a journal record: one write of one key, or a checkpoint. The journal knows only its bytes.
//!
//! Little-endian. A checkpoint is the format, the kind 3, and the place (8 bytes) before which no record is
//! needed any more. A write is, in this order:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 |
//! | 1 | kind: 1 put, 2 delete, 4 addition |
//! | 8 | version |
//! | 8 | end of the data's life in ms since the epoch, 0 for none |
//! | 2 + n | class name: length, UTF-8 |
//! | 4 + n | key: length, bytes |
//! | rest | value; of an addition what is added (8 bytes, signed) |
//!
//! The record names its class and not a table or a number, because a configuration may move or reorder those
//! between two starts.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::entry::Change;
use crate::key::Key;
use crate::port::{Lsn, Timestamp};
use crate::version::Version;

const FORMAT: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const CHECKPOINT: u8 = 3;
const ADD: u8 = 4;
const FIXED_BYTES: usize = 1 + 1 + 8 + 8 + 2 + 4;

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Write(WriteRecord),
    /// Records before this place are in the store, superseded, or of no use.
    Checkpoint(Lsn),
}

/// A write as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WriteRecord {
    pub(crate) class: String,
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) change: Change,
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

    /// The bytes of a write.
    pub(crate) fn encode(class: &str, key: &Key, version: Version, change: &Change) -> Bytes {
        let mut out =
            BytesMut::with_capacity(FIXED_BYTES + class.len() + key.len() + change.value_bytes());
        out.put_u8(FORMAT);
        let (kind, expires_at) = match change {
            Change::Put { expires_at, .. } => (PUT, *expires_at),
            Change::Add { .. } => (ADD, None),
            Change::Delete => (DELETE, None),
        };
        out.put_u8(kind);
        out.put_u64_le(version.raw());
        out.put_u64_le(expires_at.map_or(0, Timestamp::as_millis));
        // Class names and keys are bounded far below these widths when they are taken.
        out.put_u16_le(u16::try_from(class.len()).unwrap_or(u16::MAX));
        out.put_slice(class.as_bytes());
        out.put_u32_le(u32::try_from(key.len()).unwrap_or(u32::MAX));
        out.put_slice(key.as_bytes());
        match change {
            Change::Put { value, .. } => out.put_slice(value),
            Change::Add { by } => out.put_i64_le(*by),
            Change::Delete => {}
        }
        out.freeze()
    }

    /// Reads a record; nothing if the bytes are none.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let kind = bytes.try_get_u8().ok()?;
        if kind == CHECKPOINT {
            let needed_from = Lsn(bytes.try_get_u64_le().ok()?);
            return bytes.is_empty().then_some(Self::Checkpoint(needed_from));
        }
        let version = Version::from_raw(bytes.try_get_u64_le().ok()?);
        let expires_at = bytes.try_get_u64_le().ok()?;
        let class_len = usize::from(bytes.try_get_u16_le().ok()?);
        let class = String::from_utf8(take(&mut bytes, class_len)?.to_vec()).ok()?;
        let key_len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
        let key = Key::copy_from(&take(&mut bytes, key_len)?);
        let change = match kind {
            PUT => Change::Put {
                value: bytes,
                expires_at: (expires_at != 0).then(|| Timestamp::from_millis(expires_at)),
            },
            ADD if bytes.len() == 8 => Change::Add {
                by: bytes.try_get_i64_le().ok()?,
            },
            DELETE if bytes.is_empty() => Change::Delete,
            _ => return None,
        };
        Some(Self::Write(WriteRecord {
            class,
            key,
            version,
            change,
        }))
    }
}

fn take(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (bytes.len() >= len).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_as_it_was_written(
            class in "[a-z]{1,20}",
            key in prop::collection::vec(any::<u8>(), 0..100),
            version in 0..i64::MAX as u64,
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
            expires in 1..u64::MAX,
            forever: bool,
        ) {
            let key = Key::copy_from(&key);
            let version = Version::from_raw(version);
            let change = value.map_or(Change::Delete, |value| Change::Put {
                value: value.into(),
                expires_at: (!forever).then(|| Timestamp::from_millis(expires)),
            });
            let bytes = Record::encode(&class, &key, version, &change);
            let record = Record::decode(bytes);
            let written = Record::Write(WriteRecord { class, key, version, change });
            prop_assert_eq!(record, Some(written));
        }

        #[test]
        fn a_checkpoint_reads_as_it_was_written(place: u64) {
            let bytes = Record::encode_checkpoint(Lsn(place));
            prop_assert_eq!(Record::decode(bytes), Some(Record::Checkpoint(Lsn(place))));
        }

        #[test]
        fn hostile_bytes_are_no_record_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Record::decode(bytes.into());
        }
    }
}
