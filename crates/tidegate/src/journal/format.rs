//! The journal on disk, format version 1: limits, layout, who writes, who deletes.
//!
//! # The folder
//!
//! | name | is | made by | goes |
//! |---|---|---|---|
//! | `<first lsn, 20 digits>.journal` | a segment | the writer, by renaming a segment made ready | renamed or removed by the keeper when all its records are trimmed, oldest first |
//! | `<number, 20 digits>.ready` | a file for a later segment, of its size and synced; its bytes mean nothing | the keeper, filled with zeros or from a trimmed segment | becomes a segment; removed at open if its size is not the configured one |
//! | `<first lsn, 20 digits>.again` | a segment that starts over in its own file; its bytes mean nothing | the writer, on a full disk, from the only segment, when all its records are trimmed | becomes the segment of that name, at the latest at open |
//! | `*.partial` | a file being filled with zeros | the keeper | renamed when filled and synced; removed at open |
//! | `lock` | held while a process has the journal open | open | stays |
//!
//! Other names are left alone, but for `*.journal`, which are refused. A folder with neither a segment nor a
//! file of the third kind is a new journal, whose first lsn is 1. Beside a file of the third kind there is
//! never a segment.
//!
//! All numbers are little-endian. A segment is filled with zeros and synced before it is used, so a sync of
//! records is never a change of the file's length or of its blocks. Space that is only reserved (`fallocate`)
//! is not enough: its first write changes the blocks' state, which the sync must write as well.
//!
//! A file is used again as it is. Its old bytes stay behind the records of its new use, whole groups among
//! them, at the offsets where groups are looked for. They are never taken for records: each use has a new
//! random salt in the segment header, and a group counts only if it holds that salt and if its checksum, which
//! is seeded with it, matches.
//!
//! # A segment
//!
//! A header of 512 bytes, then groups, each at a multiple of 512. What one sync makes durable is one group.
//! Groups start on sectors of their own so that a write never touches a sector that was acknowledged.
//!
//! | segment header | bytes |
//! |---|---|
//! | 0 | magic `tidegate` |
//! | 8 | format version, u32: 1 |
//! | 12 | crc32 of bytes 0 to 12 and 16 to 48 |
//! | 16 | journal id, u64: random, the same in all segments of a journal |
//! | 24 | first lsn, u64: as in the file's name |
//! | 32 | salt, u64: random, new for each use of a file |
//! | 40 | size of the segment, u64 |
//!
//! | group header | bytes |
//! |---|---|
//! | 0 | magic `tgrp` |
//! | 4 | crc32 of bytes 8 to 48, seeded |
//! | 8 | salt of the segment, u64 |
//! | 16 | offset of this group in the file, u64 |
//! | 24 | lsn of the first record, u64 |
//! | 32 | records, u32; none marks a clean close |
//! | 36 | zero, u32 |
//! | 40 | length of header and records, u64 |
//!
//! | record | bytes |
//! |---|---|
//! | 0 | length of the payload, u32 |
//! | 4 | crc32 of lsn, length and payload, seeded |
//! | 8 | lsn, u64 |
//! | 16 | payload |
//!
//! Records follow each other without gaps; a group is filled up to 512 with zeros. The seed of the checksums
//! is the crc32 of journal id, salt and first lsn. A crc is a one-to-one function of its seed, so bytes of an
//! earlier use of the file, or of another journal, do not match; their lsn would be too small as well.
//!
//! # A torn tail, and what is none
//!
//! One group is written, then synced, then acknowledged, and only then the next is written. So a crash can
//! have damaged the last group that was begun and nothing else, but that one in any manner: later pages may be
//! on the disk and earlier ones not, its header may be missing, its records valid in part. Later *records* of
//! the same group are therefore no proof of anything, which is why a reader counts groups. Where the next
//! header or record is not valid:
//!
//! - a group header further on, in this segment, with the lsn that is expected: an earlier recovery cut here
//!   and the journal went on. Reading goes on there;
//! - a group header further on with another lsn: it was written after the damaged group was synced, so no
//!   crash explains the damage. The journal is corrupt;
//! - none, and a next segment that starts with the expected lsn: the end of this segment;
//! - none, and a next segment that starts with another lsn: corrupt, for the same reason;
//! - none, and no next segment: the torn tail. What was valid stays (it may be all of a group that was synced
//!   and acknowledged), the rest is overwritten with zeros and synced.
//!
//! Damage to the very last group of a journal that was not closed looks like a torn tail and is taken for
//! one. A clean close writes an empty group, which makes such damage visible as well.
//!
//! Before anything is appended, recovery writes the last group again, byte for byte, and syncs: after a failed
//! sync the page cache may show bytes that are not on the disk and that no later sync would write.
//!
//! Header search looks only at multiples of 512 and wants magic, salt, offset and checksum, so a payload that
//! holds a copy of a journal is not taken for one: to forge a header its author would have to know the salt.
//!
//! # Why crc32 and not crc32c
//!
//! Both are computed with carry-less multiplication at memory speed; `crc32fast` is small and already in most
//! builds. Both find every damage of up to 32 bits in a row. Crc32c finds any three flipped bits in records
//! of any size, crc32 only up to 11 KiB (two beyond); everything else passes either with a chance of 2^-32.

use crc32fast::Hasher;

/// Groups start at multiples of this: the sector a disk writes or does not write.
pub(super) const ALIGNMENT: u64 = 512;
/// The smallest segment.
pub(super) const SEGMENT_BYTES_MIN: u64 = 4096;
/// Bytes of a segment before its first group.
pub(super) const SEGMENT_HEADER_BYTES: usize = 512;
/// Bytes of a group before its first record.
pub(super) const GROUP_HEADER_BYTES: usize = 48;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 16;
/// The largest record, in bytes: a value of 512 MiB with room for what goes with it.
pub const RECORD_BYTES_MAX: usize = 1 << 30;
/// The most bytes one append may have on disk.
pub const APPEND_BYTES_MAX: usize = 2 << 30;

pub(super) const SEGMENT_SUFFIX: &str = ".journal";
pub(super) const PARTIAL_SUFFIX: &str = ".partial";
const READY_SUFFIX: &str = ".ready";
const AGAIN_SUFFIX: &str = ".again";
pub(super) const LOCK_NAME: &str = "lock";

const SEGMENT_MAGIC: [u8; 8] = *b"tidegate";
const GROUP_MAGIC: [u8; 4] = *b"tgrp";
const FORMAT_VERSION: u32 = 1;
const SEGMENT_FIELDS_BYTES: usize = 48;

/// The next place a group can start.
pub(super) fn aligned(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGNMENT)
}

/// The file name of the segment that starts with `first_lsn`.
pub(super) fn segment_name(first_lsn: u64) -> String {
    format!("{first_lsn:020}{SEGMENT_SUFFIX}")
}

/// The first lsn in a segment's file name; none if it is not one.
pub(super) fn segment_lsn(name: &str) -> Option<u64> {
    number(name, SEGMENT_SUFFIX)
}

/// The file name of a segment that starts over with `first_lsn`.
pub(super) fn again_name(first_lsn: u64) -> String {
    format!("{first_lsn:020}{AGAIN_SUFFIX}")
}

/// The first lsn in the name of a segment that starts over; none if it is not one.
pub(super) fn again_lsn(name: &str) -> Option<u64> {
    number(name, AGAIN_SUFFIX)
}

/// The file name of a segment made ready ahead.
pub(super) fn ready_name(number: u64) -> String {
    format!("{number:020}{READY_SUFFIX}")
}

/// The number in the name of a segment made ready ahead; none if it is not one.
pub(super) fn ready_number(name: &str) -> Option<u64> {
    number(name, READY_SUFFIX)
}

fn number(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// How a segment begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) journal_id: u64,
    pub(super) first_lsn: u64,
    pub(super) salt: u64,
    pub(super) bytes: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.journal_id.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[32..40].copy_from_slice(&self.salt.to_le_bytes());
        out[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = Self::crc(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header, or says in words what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < SEGMENT_HEADER_BYTES {
            return Err("the file is shorter than a segment header".into());
        }
        if bytes[..8] != SEGMENT_MAGIC {
            return Err("not a journal segment".into());
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(format!(
                "format version is {version}, this build reads {FORMAT_VERSION}"
            ));
        }
        if u32_at(bytes, 12) != Self::crc(bytes) {
            return Err("checksum of the segment header does not match".into());
        }
        Ok(Self {
            journal_id: u64_at(bytes, 16),
            first_lsn: u64_at(bytes, 24),
            salt: u64_at(bytes, 32),
            bytes: u64_at(bytes, 40),
        })
    }

    fn crc(bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&bytes[..12]);
        hasher.update(&bytes[16..SEGMENT_FIELDS_BYTES]);
        hasher.finalize()
    }

    /// What ties the checksums of records to this use of this file.
    pub(super) fn stamp(&self) -> Stamp {
        let mut hasher = Hasher::new();
        hasher.update(&self.journal_id.to_le_bytes());
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&self.first_lsn.to_le_bytes());
        Stamp {
            salt: self.salt,
            seed: hasher.finalize(),
        }
    }
}

/// The salt of a segment and the seed of its checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    salt: u64,
    seed: u32,
}

impl Stamp {
    /// Starts the checksum of a record; the payload comes next.
    pub(super) fn record_hasher(self, lsn: u64, length: u32) -> Hasher {
        let mut hasher = Hasher::new_with_initial(self.seed);
        let mut fields = [0; 12];
        fields[..8].copy_from_slice(&lsn.to_le_bytes());
        fields[8..].copy_from_slice(&length.to_le_bytes());
        hasher.update(&fields);
        hasher
    }

    /// Adds a record to `out`. The caller has checked that its length fits a u32.
    pub(super) fn encode_record(self, lsn: u64, payload: &[u8], out: &mut Vec<u8>) {
        let length = payload.len() as u32;
        let mut hasher = self.record_hasher(lsn, length);
        hasher.update(payload);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&hasher.finalize().to_le_bytes());
        out.extend_from_slice(&lsn.to_le_bytes());
        out.extend_from_slice(payload);
    }

    pub(super) fn encode_group(self, group: &GroupHeader) -> [u8; GROUP_HEADER_BYTES] {
        let mut out = [0; GROUP_HEADER_BYTES];
        out[..4].copy_from_slice(&GROUP_MAGIC);
        out[8..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&group.offset.to_le_bytes());
        out[24..32].copy_from_slice(&group.first_lsn.to_le_bytes());
        out[32..36].copy_from_slice(&group.records.to_le_bytes());
        out[40..48].copy_from_slice(&group.length.to_le_bytes());
        let crc = self.group_crc(&out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The group header in `bytes`, which are at `offset` of the file; none if it is not one of this segment.
    pub(super) fn decode_group(self, bytes: &[u8], offset: u64) -> Option<GroupHeader> {
        if bytes.len() < GROUP_HEADER_BYTES
            || bytes[..4] != GROUP_MAGIC
            || u64_at(bytes, 8) != self.salt
            || u64_at(bytes, 16) != offset
            || u32_at(bytes, 4) != self.group_crc(bytes)
        {
            return None;
        }
        Some(GroupHeader {
            offset,
            first_lsn: u64_at(bytes, 24),
            records: u32_at(bytes, 32),
            length: u64_at(bytes, 40),
        })
    }

    fn group_crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.seed);
        hasher.update(&bytes[8..GROUP_HEADER_BYTES]);
        hasher.finalize()
    }
}

/// How a group begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GroupHeader {
    pub(super) offset: u64,
    pub(super) first_lsn: u64,
    pub(super) records: u32,
    pub(super) length: u64,
}

impl GroupHeader {
    /// Where the records of the group end.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// How a record begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHeader {
    pub(super) length: u32,
    pub(super) crc: u32,
    pub(super) lsn: u64,
}

impl RecordHeader {
    pub(super) fn decode(bytes: &[u8]) -> Self {
        Self {
            length: u32_at(bytes, 0),
            crc: u32_at(bytes, 4),
            lsn: u64_at(bytes, 8),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        journal_id: 7,
        first_lsn: 42,
        salt: 99,
        bytes: 4096,
    };

    #[test]
    fn a_flipped_bit_in_a_segment_header_is_found() {
        let good = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(HEADER));
        for bit in 0..SEGMENT_FIELDS_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_group_header_counts_only_where_it_was_written() {
        let group = GroupHeader {
            offset: 512,
            first_lsn: 42,
            records: 3,
            length: 100,
        };
        let stamp = HEADER.stamp();
        let good = stamp.encode_group(&group);
        assert_eq!(stamp.decode_group(&good, 512), Some(group));
        assert_eq!(stamp.decode_group(&good, 1024), None);
        for other in [
            SegmentHeader { salt: 98, ..HEADER },
            SegmentHeader {
                journal_id: 8,
                ..HEADER
            },
            SegmentHeader {
                first_lsn: 43,
                ..HEADER
            },
        ] {
            assert_eq!(other.stamp().decode_group(&good, 512), None, "{other:?}");
        }
        for bit in 0..GROUP_HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(stamp.decode_group(&bad, 512), None, "bit {bit}");
        }
    }

    #[test]
    fn names_hold_the_first_lsn() {
        assert_eq!(segment_name(7), "00000000000000000007.journal");
        assert_eq!(segment_lsn(&segment_name(u64::MAX)), Some(u64::MAX));
        for odd in ["7.journal", &ready_name(7), "+0000000000000000007.journal"] {
            assert_eq!(segment_lsn(odd), None, "{odd}");
        }
    }
}
