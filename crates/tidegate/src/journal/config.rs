//! What can be set about a journal.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_core::port::JournalError;

use super::format::{ALIGNMENT, SEGMENT_BYTES_MIN};

/// Where a journal lives and how large it may become.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalConfig {
    /// The folder, made if it is not there. One journal to a folder, one process to a journal.
    pub path: PathBuf,
    /// Size of a segment file: a multiple of 512, at least 4096; 64 MiB if nothing is said. A record that
    /// needs more gets a segment of its own.
    pub segment_bytes: u64,
    /// What all files of the journal together may occupy, those made ready ahead included: at least two
    /// segments; 4 GiB if nothing is said. Beyond it appends answer that the journal is full. When more than
    /// half of it is in use, the journal asks its owner to move old records that are still needed.
    pub bytes_max: u64,
    /// A sync is shared by appends of up to this many bytes together; 8 MiB if nothing is said. One append
    /// alone may be larger.
    pub group_bytes_max: usize,
    /// When this many bytes wait in memory for the disk, no further append is let in until some are on it;
    /// 64 MiB if nothing is said.
    pub queued_bytes_max: usize,
    /// After the disk had no room for the next segment, it is tried again no sooner than this, unless a trim
    /// made room. One second if nothing is said: each try writes up to a segment of zeros.
    pub space_retry: Duration,
}

impl JournalConfig {
    /// The defaults, in `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            segment_bytes: 64 << 20,
            bytes_max: 4 << 30,
            group_bytes_max: 8 << 20,
            queued_bytes_max: 64 << 20,
            space_retry: Duration::from_secs(1),
        }
    }

    pub(super) fn check(&self) -> Result<(), JournalError> {
        let refuse = |message: String| Err(JournalError::unavailable(message));
        if self.path.as_os_str().is_empty() {
            return refuse("path is empty".into());
        }
        if self.segment_bytes < SEGMENT_BYTES_MIN || !self.segment_bytes.is_multiple_of(ALIGNMENT) {
            return refuse(format!(
                "segment_bytes is {}, it must be a multiple of {ALIGNMENT} and at least {SEGMENT_BYTES_MIN}",
                self.segment_bytes
            ));
        }
        if self.bytes_max / 2 < self.segment_bytes {
            return refuse(format!(
                "bytes_max is {}, it must be at least two segments of {}",
                self.bytes_max, self.segment_bytes
            ));
        }
        if self.group_bytes_max == 0 {
            return refuse("group_bytes_max is 0".into());
        }
        if self.queued_bytes_max == 0 {
            return refuse("queued_bytes_max is 0".into());
        }
        Ok(())
    }
}
