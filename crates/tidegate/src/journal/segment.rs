//! Segment files as such: how one is made ready, and the list of those in use.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::format::segment_name;
use super::io::{Disk, DiskFile, write_all_at};

/// Bytes of zeros written at once.
const ZEROS_BYTES: usize = 1 << 20;

/// A segment in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentFile {
    pub(super) first_lsn: u64,
    pub(super) bytes: u64,
}

impl SegmentFile {
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(segment_name(self.first_lsn))
    }
}

/// A file of the right size that is no segment yet: its blocks are its own, its bytes mean nothing.
pub(super) struct ReadyFile {
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) bytes: u64,
}

/// The segments in use, oldest first. The last is written on by the writer, which adds to the end; the
/// keeper takes from the front.
pub(super) type Segments = VecDeque<SegmentFile>;

/// Makes a file of `bytes` zeros under the name `partial`, syncs it, and names it `path`, but does not sync
/// the names. Leaves nothing behind if it fails.
pub(super) fn make_ready(
    disk: &dyn Disk,
    partial: &Path,
    path: PathBuf,
    bytes: u64,
    stop: &dyn Fn() -> bool,
) -> io::Result<ReadyFile> {
    let fill = || {
        let file = disk.create(partial)?;
        write_zeros(&*file, 0, bytes, stop)?;
        file.sync_data()?;
        disk.rename(partial, &path)?;
        Ok(file)
    };
    match fill() {
        Ok(file) => Ok(ReadyFile { path, file, bytes }),
        Err(error) => {
            // The file may not have been made at all; the first error is the one that matters.
            let _ = disk.remove(partial);
            Err(error)
        }
    }
}

/// Writes zeros from `from` to `to`; gives up between two writes when `stop` says so.
pub(super) fn write_zeros(
    file: &dyn DiskFile,
    from: u64,
    to: u64,
    stop: &dyn Fn() -> bool,
) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min(usize::try_from(to - from).unwrap_or(ZEROS_BYTES))];
    let mut at = from;
    while at < to {
        if stop() {
            return Err(io::Error::other("the journal is closing"));
        }
        let bytes = usize::try_from(to - at)
            .unwrap_or(ZEROS_BYTES)
            .min(zeros.len());
        write_all_at(file, &zeros[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}
