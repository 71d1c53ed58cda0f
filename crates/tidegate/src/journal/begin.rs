//! How a segment begins: in a file that was made ready, or, on a full disk, in its own.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use tidegate_core::port::JournalError;

use super::error::{poisoned, unavailable};
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, again_name, segment_name};
use super::io::{Disk, write_all_at};
use super::random::random;
use super::segment::{ReadyFile, SegmentFile};
use super::shared::Shared;
use super::writer::Active;

/// Makes a ready file the segment of `header` and the last in the list.
pub(super) fn begin_segment(
    shared: &Shared,
    ready: ReadyFile,
    header: SegmentHeader,
) -> Result<Active, JournalError> {
    let folder = &shared.config.path;
    let path = folder.join(segment_name(header.first_lsn));
    name_segment(&*shared.disk, folder, &ready, &header, &path)
        .map_err(|error| poisoned("begin", &path, &error))?;
    let mut segments = shared.segments();
    let last = segments.back().copied();
    if let Some(empty) = last.filter(|last| last.first_lsn == header.first_lsn) {
        // It held no record, so both have one name and the new file took its place.
        segments.pop_back();
        shared.bytes.fetch_sub(empty.bytes, Ordering::AcqRel);
    }
    segments.push_back(SegmentFile {
        first_lsn: header.first_lsn,
        bytes: header.bytes,
    });
    drop(segments);
    Ok(Active::new(header, path, ready.file))
}

/// The first segment of a journal that has none, before it is opened.
pub(super) fn begin_first(
    disk: &dyn Disk,
    folder: &Path,
    file: ReadyFile,
    first_lsn: u64,
) -> Result<(Active, SegmentFile), JournalError> {
    let header = SegmentHeader {
        journal_id: random(),
        first_lsn,
        salt: random(),
        bytes: file.bytes,
    };
    let path = folder.join(segment_name(first_lsn));
    name_segment(disk, folder, &file, &header, &path)
        .map_err(|error| unavailable("begin", &path, &error))?;
    let segment = SegmentFile {
        first_lsn,
        bytes: file.bytes,
    };
    Ok((Active::new(header, path, file.file), segment))
}

/// The header is durable before the file has a segment's name, and the name before a record is written, so a
/// segment without a valid header is damage and never the work of a crash.
fn name_segment(
    disk: &dyn Disk,
    folder: &Path,
    file: &ReadyFile,
    header: &SegmentHeader,
    path: &Path,
) -> io::Result<()> {
    write_all_at(&*file.file, &header.encode(), 0)?;
    file.file.sync_data()?;
    disk.rename(&file.path, path)?;
    disk.sync_folder(folder)
}

/// Starts the only segment over, in its own file: for when the disk has no room for another.
///
/// Of the three steps each is durable before the next begins: the file gets a name that tells the next lsn
/// and that its bytes mean nothing; the header is written; the file gets its segment's name.
pub(super) fn begin_again(
    shared: &Shared,
    active: &mut Active,
    header: SegmentHeader,
) -> Result<(), JournalError> {
    let folder = &shared.config.path;
    let reading = shared.removal.write();
    let _guard = reading.unwrap_or_else(PoisonError::into_inner);
    let between = folder.join(again_name(header.first_lsn));
    let path = folder.join(segment_name(header.first_lsn));
    let disk = &shared.disk;
    disk.rename(&active.path, &between)
        .and_then(|()| disk.sync_folder(folder))
        .and_then(|()| write_all_at(&*active.file, &header.encode(), 0))
        .and_then(|()| active.file.sync_data())
        .and_then(|()| disk.rename(&between, &path))
        .and_then(|()| disk.sync_folder(folder))
        .map_err(|error| poisoned("begin", &path, &error))?;
    let mut segments = shared.segments();
    segments.clear();
    segments.push_back(SegmentFile {
        first_lsn: header.first_lsn,
        bytes: header.bytes,
    });
    drop(segments);
    active.header = header;
    active.path = path;
    active.position = SEGMENT_HEADER_BYTES as u64;
    Ok(())
}
