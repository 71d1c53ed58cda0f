//! What happens to a journal's files before it is used: every record is checked, a torn tail is cut, other
//! damage refuses. The reasoning is at the head of `format.rs`.

use std::path::Path;

use tidegate_core::port::JournalError;

use super::error::{corrupt, unavailable};
use super::format::{
    PARTIAL_SUFFIX, SEGMENT_SUFFIX, again_lsn, again_name, aligned, ready_number, segment_lsn,
    segment_name,
};
use super::io::{Disk, DiskFile, read_full_at, write_all_at};
use super::reader::{SegmentReader, Step};
use super::segment::{SegmentFile, write_zeros};

/// Bytes copied at once while the last group is written again.
const COPY_BYTES: usize = 1 << 20;

/// What a journal's folder holds.
pub(super) struct Recovered {
    /// Oldest first.
    pub(super) segments: Vec<SegmentFile>,
    /// The last segment, ready to be written on; none in a new journal.
    pub(super) last: Option<Last>,
    /// A segment that was about to start over when the machine stopped; then there is no other.
    pub(super) again: Option<u64>,
    /// The names of files for later segments.
    pub(super) ready: Vec<u64>,
}

/// The segment that is written on.
pub(super) struct Last {
    pub(super) reader: SegmentReader,
    /// Where the next group goes.
    pub(super) position: u64,
}

/// Checks and repairs the files in `folder`.
pub(super) fn recover(disk: &dyn Disk, folder: &Path) -> Result<Recovered, JournalError> {
    let names = disk
        .list(folder)
        .map_err(|error| unavailable("list", folder, &error))?;
    let mut first_lsns = Vec::new();
    let mut again = None;
    let mut ready = Vec::new();
    for name in names {
        let path = folder.join(&name);
        if let Some(lsn) = segment_lsn(&name) {
            first_lsns.push(lsn);
        } else if name.ends_with(SEGMENT_SUFFIX) {
            return Err(corrupt(&path, 0, "the name is not that of a segment"));
        } else if name.ends_with(PARTIAL_SUFFIX) {
            disk.remove(&path)
                .map_err(|error| unavailable("remove", &path, &error))?;
        } else if let Some(lsn) = again_lsn(&name) {
            if again.replace(lsn).is_some() {
                return Err(corrupt(&path, 0, "two segments that start over"));
            }
        } else {
            ready.extend(ready_number(&name));
        }
    }
    first_lsns.sort_unstable();
    if let (Some(lsn), Some(_)) = (again, first_lsns.first()) {
        let path = folder.join(again_name(lsn));
        return Err(corrupt(
            &path,
            0,
            "a segment that starts over is not the only one",
        ));
    }

    let mut segments: Vec<SegmentFile> = Vec::with_capacity(first_lsns.len());
    let mut last: Option<Last> = None;
    for first_lsn in first_lsns {
        let path = folder.join(segment_name(first_lsn));
        let mut reader = SegmentReader::open(disk, &path)?;
        if let Some(Last {
            reader: earlier,
            position,
        }) = last.take()
        {
            if reader.header.journal_id != earlier.header.journal_id {
                return Err(corrupt(&path, 16, "the segment is of another journal"));
            }
            if earlier.next_lsn != first_lsn {
                return Err(corrupt(
                    &earlier.path,
                    position,
                    format_args!(
                        "no valid record with lsn {}, yet a segment starts with {first_lsn}",
                        earlier.next_lsn
                    ),
                ));
            }
        }
        let stopped_at = walk(&mut reader)?;
        segments.push(SegmentFile {
            first_lsn,
            bytes: reader.header.bytes,
        });
        last = Some(Last {
            reader,
            position: stopped_at,
        });
    }
    if let Some(last) = &mut last {
        repair(last)?;
    }
    Ok(Recovered {
        segments,
        last,
        again,
        ready,
    })
}

/// Checks a segment up to its end, and returns where that is.
fn walk(reader: &mut SegmentReader) -> Result<u64, JournalError> {
    loop {
        let (offset, why) = match reader.step(false)? {
            Step::Record { .. } => continue,
            Step::Stop { offset, why } => (offset, why),
        };
        match reader.find_group(offset)? {
            // An earlier recovery cut the journal here, and it went on.
            Some(group) if group.first_lsn == reader.next_lsn => {
                reader.enter(group);
            }
            Some(group) => {
                return Err(corrupt(
                    &reader.path,
                    offset,
                    format_args!(
                        "{why} where lsn {} is expected, yet a later write at offset {} has lsn {}",
                        reader.next_lsn, group.offset, group.first_lsn
                    ),
                ));
            }
            None => return Ok(offset),
        }
    }
}

/// Makes the end of the last segment definite: what is valid is on the disk, what is not is zero.
fn repair(last: &mut Last) -> Result<(), JournalError> {
    let Last { reader, position } = last;
    let cut = *position;
    *position = aligned(cut);
    let dirty_end = reader.zeros_from(cut)?;
    let failed = |error| unavailable("repair", &reader.path, &error);
    if let Some(group) = reader.last_group {
        rewrite(&*reader.file, group.offset, cut).map_err(failed)?;
    }
    if dirty_end > cut {
        tracing::info!(
            segment = %reader.path.display(),
            offset = cut,
            next_lsn = reader.next_lsn,
            bytes = dirty_end - cut,
            "cut the journal after its last valid record"
        );
        write_zeros(&*reader.file, cut, dirty_end, &|| false).map_err(failed)?;
    }
    if reader.last_group.is_some() || dirty_end > cut {
        reader.file.sync_data().map_err(failed)?;
    }
    reader.forget_window();
    Ok(())
}

/// Writes `from..to` of a file over itself.
fn rewrite(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at)
            .unwrap_or(COPY_BYTES)
            .min(COPY_BYTES);
        let read = read_full_at(file, &mut buffer[..wanted], at)?;
        if read == 0 {
            break;
        }
        write_all_at(file, &buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}
