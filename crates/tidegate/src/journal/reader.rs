//! Walks the records of one segment, for recovery and for replay, in bounded memory.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidegate_core::port::JournalError;

use super::error::{corrupt, unavailable};
use super::format::{
    ALIGNMENT, GROUP_HEADER_BYTES, GroupHeader, RECORD_BYTES_MAX, RECORD_HEADER_BYTES,
    RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, Stamp, aligned, segment_lsn,
};
use super::io::{Disk, DiskFile, read_full_at};

/// Bytes read from the file at once.
const WINDOW_BYTES: usize = 1 << 20;

/// What comes next in a segment.
pub(super) enum Step {
    /// A valid record, with its payload if that was asked for.
    Record { lsn: u64, payload: Option<Bytes> },
    /// There is no valid record at `offset`. Whether that is the end or damage is told by what follows.
    Stop { offset: u64, why: &'static str },
}

/// A place in a segment.
pub(super) struct SegmentReader {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) file: Box<dyn DiskFile>,
    /// The lsn that the next record must have.
    pub(super) next_lsn: u64,
    /// Where the last valid group header was met, and how many records it announces.
    pub(super) last_group: Option<GroupHeader>,
    /// Where the next record or group is looked for.
    position: u64,
    /// Records of the current group that are still to come.
    left: u32,
    stamp: Stamp,
    window: Vec<u8>,
    window_start: u64,
}

impl SegmentReader {
    /// Opens a segment and reads its header.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, JournalError> {
        let file = disk
            .open(path)
            .map_err(|error| unavailable("open", path, &error))?;
        let read_failed = |error: io::Error| unavailable("read", path, &error);
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        let read = read_full_at(&*file, &mut bytes, 0).map_err(read_failed)?;
        let header =
            SegmentHeader::decode(&bytes[..read]).map_err(|what| corrupt(path, 0, what))?;
        let named = path.file_name().and_then(|name| name.to_str());
        if named.and_then(segment_lsn) != Some(header.first_lsn) {
            return Err(corrupt(
                path,
                24,
                format_args!("the segment starts with lsn {}", header.first_lsn),
            ));
        }
        let file_bytes = file.bytes().map_err(read_failed)?;
        if file_bytes < header.bytes {
            return Err(corrupt(
                path,
                file_bytes,
                format_args!("the file ends, the segment is {} bytes", header.bytes),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            header,
            file,
            next_lsn: header.first_lsn,
            last_group: None,
            position: SEGMENT_HEADER_BYTES as u64,
            left: 0,
            stamp: header.stamp(),
            window: Vec::new(),
            window_start: 0,
        })
    }

    /// The next record, or why there is none. With `keep` the payload is returned, otherwise only checked.
    pub(super) fn step(&mut self, keep: bool) -> Result<Step, JournalError> {
        while self.left == 0 {
            if let Some(group) = self.last_group {
                // The header is covered by its checksum: records that end elsewhere were never written so.
                if self.position == group.end() {
                    self.position = aligned(self.position);
                } else if self.position != aligned(self.position) {
                    return Ok(self.stop("records do not end where their group does"));
                }
            }
            let Some(group) = self.group_at(self.position)? else {
                return Ok(self.stop("no group"));
            };
            if group.first_lsn != self.next_lsn {
                return Ok(self.stop("a group with another lsn"));
            }
            self.enter(group);
        }
        self.record(keep)
    }

    /// Goes on at a group that [`find_group`](Self::find_group) found.
    pub(super) fn enter(&mut self, group: GroupHeader) {
        self.position = group.offset + GROUP_HEADER_BYTES as u64;
        self.left = group.records;
        self.last_group = Some(group);
    }

    /// The first group header at or after `offset`.
    pub(super) fn find_group(&mut self, offset: u64) -> Result<Option<GroupHeader>, JournalError> {
        let mut offset = aligned(offset);
        while offset < self.header.bytes {
            if let Some(group) = self.group_at(offset)? {
                return Ok(Some(group));
            }
            offset += ALIGNMENT;
        }
        Ok(None)
    }

    /// Where the bytes from `offset` to the end of the segment are all zero from: `offset` if they all are.
    pub(super) fn zeros_from(&mut self, offset: u64) -> Result<u64, JournalError> {
        let mut zeros_from = offset;
        let mut at = offset;
        while at < self.header.bytes {
            let bytes = self.look(at, WINDOW_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                zeros_from = at + last as u64 + 1;
            }
            at += bytes.len() as u64;
        }
        Ok(zeros_from)
    }

    /// Forgets what was read ahead; the file may have grown since.
    pub(super) fn forget_window(&mut self) {
        self.window.clear();
    }

    fn record(&mut self, keep: bool) -> Result<Step, JournalError> {
        let group_end = self
            .last_group
            .map_or(0, |group| group.end())
            .min(self.header.bytes);
        let payload_at = self.position + RECORD_HEADER_BYTES as u64;
        if payload_at > group_end {
            return Ok(self.stop("a record beyond its group"));
        }
        let bytes = self.look(self.position, RECORD_HEADER_BYTES)?;
        if bytes.len() < RECORD_HEADER_BYTES {
            return Ok(self.stop("the file ends within a record"));
        }
        let header = RecordHeader::decode(bytes);
        let end = payload_at + u64::from(header.length);
        if header.lsn != self.next_lsn {
            return Ok(self.stop("a record with another lsn"));
        }
        if end > group_end || header.length as usize > RECORD_BYTES_MAX {
            return Ok(self.stop("a record longer than its group"));
        }
        let mut hasher = self.stamp.record_hasher(header.lsn, header.length);
        let mut kept = Vec::with_capacity(if keep { header.length as usize } else { 0 });
        let mut at = payload_at;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(WINDOW_BYTES);
            let bytes = self.look(at, wanted.min(WINDOW_BYTES))?;
            if bytes.is_empty() {
                return Ok(self.stop("the file ends within a record"));
            }
            let piece = &bytes[..bytes.len().min(wanted)];
            hasher.update(piece);
            if keep {
                kept.extend_from_slice(piece);
            }
            at += piece.len() as u64;
        }
        if hasher.finalize() != header.crc {
            return Ok(self.stop("checksum of a record does not match"));
        }
        self.position = end;
        self.left -= 1;
        self.next_lsn = self.next_lsn.saturating_add(1);
        Ok(Step::Record {
            lsn: header.lsn,
            payload: keep.then(|| kept.into()),
        })
    }

    fn stop(&self, why: &'static str) -> Step {
        Step::Stop {
            offset: self.position,
            why,
        }
    }

    fn group_at(&mut self, offset: u64) -> Result<Option<GroupHeader>, JournalError> {
        if offset + GROUP_HEADER_BYTES as u64 > self.header.bytes {
            return Ok(None);
        }
        let stamp = self.stamp;
        Ok(stamp.decode_group(self.look(offset, GROUP_HEADER_BYTES)?, offset))
    }

    /// At least `wanted` bytes at `offset` (at most a window), fewer only at the end of the segment.
    fn look(&mut self, offset: u64, wanted: usize) -> Result<&[u8], JournalError> {
        let held = self.window_start + self.window.len() as u64;
        let inside = offset >= self.window_start && offset + wanted as u64 <= held;
        if !inside {
            let room = self.header.bytes.saturating_sub(offset);
            let bytes = usize::try_from(room)
                .unwrap_or(WINDOW_BYTES)
                .min(WINDOW_BYTES);
            self.window.resize(bytes, 0);
            let read = read_full_at(&*self.file, &mut self.window, offset)
                .map_err(|error| unavailable("read", &self.path, &error))?;
            self.window.truncate(read);
            self.window_start = offset;
        }
        let from = usize::try_from(offset - self.window_start).unwrap_or(usize::MAX);
        Ok(self.window.get(from..).unwrap_or_default())
    }
}
