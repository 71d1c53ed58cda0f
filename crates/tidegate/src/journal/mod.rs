//! A journal in segment files: write-back that survives kill -9 and a power cut, with nothing to install.
//!
//! An append is answered when it is on the disk. Appends that come while the disk syncs share the next sync
//! (group commit), so one disk serves one writer in a sync each and a hundred writers at almost the same
//! pace. A torn tail is cut when the journal is opened, any other damage refuses to open, and after a failed
//! write or sync nothing more is accepted. What exactly is on the disk, and how a torn tail is told from
//! damage, is at the head of `format.rs`.
//!
//! ```
//! # use bytes::Bytes;
//! # use tidegate::journal::{FileJournal, JournalConfig};
//! # use tidegate_core::port::{Journal, Lsn};
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! # let folder = tempfile::tempdir().unwrap();
//! let mut config = JournalConfig::new(folder.path().join("journal"));
//! config.segment_bytes = 1 << 20;
//! let journal = FileJournal::open(config)?;
//! let last = journal.append(vec![Bytes::from("a"), Bytes::from("b")]).await?;
//! assert_eq!(last, Lsn(2));
//! assert_eq!(journal.replay(Lsn(2), 10).await?[0].record, "b");
//! journal.close().await;
//! # Ok::<(), tidegate_core::port::JournalError>(())
//! # }).unwrap();
//! ```
//!
//! In reading order: the format, the operations of a disk, segments, recovery, the intake (places and room),
//! the keeper (segments ahead, removal), the writer, how a segment begins, who waits, replay. Unix only: it writes at offsets and syncs folders.

mod begin;
mod config;
mod durable;
mod error;
#[doc(hidden)]
pub mod faulty;
mod file_journal;
mod format;
mod intake;
#[doc(hidden)]
pub mod io;
mod keeper;
mod random;
mod reader;
mod recovery;
mod replay;
mod segment;
mod shared;
mod writer;

pub use config::JournalConfig;
pub use file_journal::FileJournal;
pub use format::{APPEND_BYTES_MAX, RECORD_BYTES_MAX};
