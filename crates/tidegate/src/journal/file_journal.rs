//! The journal's handle: opens the folder, starts the threads, speaks the port.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tidegate_core::port::{BoxFuture, Journal, JournalError, Lsn, Replayed};
use tokio::sync::oneshot;

use super::config::JournalConfig;
use super::error::unavailable;
use super::format::{
    APPEND_BYTES_MAX, LOCK_NAME, READY_NAME, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, SegmentHeader,
};
use super::io::{Disk, RealDisk};
use super::keeper::{self, Request};
use super::random::random;
use super::recovery::{Last, recover};
use super::replay::{self, Cursor};
use super::segment::{ReadyFile, make_ready};
use super::shared::{Pending, Shared};
use super::writer::{Active, Writer, begin_segment};

/// A [`Journal`] in segment files.
///
/// Dropping it without [`close`](Journal::close) finishes what is queued and waits for that, so the folder is
/// free when the drop returns; inside an async task prefer `close`, which does not block.
pub struct FileJournal {
    shared: Arc<Shared>,
    keeper: Sender<Request>,
    /// Taken by whoever joins it.
    thread: Mutex<Option<JoinHandle<()>>>,
    cursor: Arc<Mutex<Option<Cursor>>>,
}

impl FileJournal {
    /// Opens the journal in a folder, or makes one. Every record is checked; a torn tail is cut.
    ///
    /// Reads all segments and, in a new journal, writes a segment of zeros: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`Corrupt`](JournalError::Corrupt) names the file and offset of damage that no crash explains.
    /// [`Unavailable`](JournalError::Unavailable): the configuration contradicts itself, another process has
    /// the journal open, or the operating system refuses. [`Full`](JournalError::Full): no room for the first
    /// segment of a new journal.
    pub fn open(config: JournalConfig) -> Result<Self, JournalError> {
        Self::open_on(config, Arc::new(RealDisk))
    }

    /// [`open`](Self::open) on a disk of one's own, which is for tests.
    #[doc(hidden)]
    pub fn open_on(config: JournalConfig, disk: Arc<dyn Disk>) -> Result<Self, JournalError> {
        config.check()?;
        let folder = config.path.clone();
        disk.create_folder(&folder)
            .map_err(|error| unavailable("create", &folder, &error))?;
        let lock_path = folder.join(LOCK_NAME);
        let lock = disk
            .lock(&lock_path)
            .map_err(|error| unavailable("lock", &lock_path, &error))?;
        let Some(lock) = lock else {
            return Err(JournalError::unavailable(format_args!(
                "{} is in use by another process",
                folder.display()
            )));
        };
        let recovered = recover(&*disk, &folder)?;
        // What an earlier process named or removed may be in the cache alone; from here on it is relied on.
        disk.sync_folder(&folder)
            .map_err(|error| unavailable("sync", &folder, &error))?;
        let ready = if recovered.ready {
            reuse_ready(&*disk, &config)?
        } else {
            None
        };
        let segments = VecDeque::from(recovered.segments);
        let bytes = segments.iter().map(|segment| segment.bytes).sum::<u64>()
            + ready.as_ref().map_or(0, |file| file.bytes);
        let tail = recovered
            .last
            .as_ref()
            .map_or(1, |last| last.reader.next_lsn);
        let shared = Arc::new(Shared::new(config, disk, segments, bytes, tail));
        let (active, ready) = match recovered.last {
            Some(Last { reader, position }) => (
                Active {
                    header: reader.header,
                    path: reader.path,
                    file: reader.file,
                    position,
                },
                ready,
            ),
            None => (first_segment(&shared, ready)?, None),
        };
        let no_thread = |error| unavailable("start a thread for", &folder, &error);
        let (keeper, keeper_thread) =
            keeper::start(Arc::clone(&shared), ready).map_err(no_thread)?;
        let writer = Writer::new(Arc::clone(&shared), active, keeper.clone());
        let thread = writer.start(keeper_thread, lock).map_err(no_thread)?;
        Ok(Self {
            shared,
            keeper,
            thread: Mutex::new(Some(thread)),
            cursor: Arc::default(),
        })
    }

    /// What the records of an append need in a segment, if they are within the limits.
    fn encoded_bytes(records: &[Bytes]) -> Result<usize, JournalError> {
        let mut sum: usize = 0;
        for record in records {
            if record.len() > RECORD_BYTES_MAX {
                return Err(JournalError::full(format_args!(
                    "a record of {} bytes is over the limit of {RECORD_BYTES_MAX}",
                    record.len()
                )));
            }
            sum = sum.saturating_add(RECORD_HEADER_BYTES + record.len());
        }
        if sum > APPEND_BYTES_MAX {
            return Err(JournalError::full(format_args!(
                "an append of {sum} bytes is over the limit of {APPEND_BYTES_MAX}"
            )));
        }
        Ok(sum)
    }

    fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic of the writer was printed where it happened, and every append was refused.
            let _ = thread.join();
        }
    }
}

/// A file that an earlier run made ready, if it has the right size; otherwise it is removed.
fn reuse_ready(disk: &dyn Disk, config: &JournalConfig) -> Result<Option<ReadyFile>, JournalError> {
    let path = config.path.join(READY_NAME);
    let failed = |error| unavailable("open", &path, &error);
    let file = disk.open(&path).map_err(failed)?;
    if file.bytes().map_err(failed)? == config.segment_bytes {
        return Ok(Some(ReadyFile {
            path,
            file,
            bytes: config.segment_bytes,
        }));
    }
    disk.remove(&path)
        .map_err(|error| unavailable("remove", &path, &error))?;
    Ok(None)
}

fn first_segment(shared: &Shared, ready: Option<ReadyFile>) -> Result<Active, JournalError> {
    let bytes = shared.config.segment_bytes;
    let ready = match ready {
        Some(ready) => ready,
        None => {
            let path = shared.config.path.join("first.partial");
            let made = make_ready(&*shared.disk, path.clone(), bytes, &|| false);
            let made = made.map_err(|error| {
                if super::io::is_full(&error) {
                    JournalError::full(format_args!("prepare {}: {error}", path.display()))
                } else {
                    unavailable("prepare", &path, &error)
                }
            })?;
            shared.bytes.fetch_add(bytes, Ordering::AcqRel);
            made
        }
    };
    let header = SegmentHeader {
        journal_id: random(),
        first_lsn: 1,
        salt: random(),
        bytes,
    };
    begin_segment(shared, ready, header)
}

impl Journal for FileJournal {
    /// An append within a group of others is never split over two segments. Beyond the port's contract: when
    /// `queued_bytes_max` bytes wait already, it waits for room before anything is written; closing the
    /// journal refuses those that wait so.
    fn append(&self, records: Vec<Bytes>) -> BoxFuture<'_, Result<Lsn, JournalError>> {
        Box::pin(async move {
            self.shared.usable()?;
            if records.is_empty() {
                return Ok(Lsn(self.shared.tail() - 1));
            }
            let encoded_bytes = Self::encoded_bytes(&records)?;
            let permits = encoded_bytes.min(self.shared.config.queued_bytes_max);
            let room = Arc::clone(&self.shared.room)
                .acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX))
                .await
                .map_err(|_| self.shared.refusal())?;
            let (answer, answered) = oneshot::channel();
            let pending = Pending {
                records,
                encoded_bytes,
                answer,
                room,
            };
            if self.shared.queue.push(pending).is_err() {
                return Err(self.shared.refusal());
            }
            answered
                .await
                .unwrap_or_else(|_| Err(self.shared.refusal()))
        })
    }

    fn submit(&self, _records: &[Bytes]) -> Result<Lsn, JournalError> {
        Err(JournalError::unavailable(
            "the file journal takes appends only",
        ))
    }

    fn wait(&self, _last: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(std::future::ready(Err(JournalError::unavailable(
            "the file journal takes appends only",
        ))))
    }

    fn room(&self, _records: &[Bytes]) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn tail(&self) -> Lsn {
        Lsn(self.shared.tail())
    }

    /// Reads in a blocking task of the runtime. A page ends early, after some 16 MiB, so that a large `limit`
    /// does not need large memory; only an empty page is the end.
    fn replay(
        &self,
        from: Lsn,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Replayed>, JournalError>> {
        let shared = Arc::clone(&self.shared);
        let cursor = Arc::clone(&self.cursor);
        Box::pin(async move {
            let page = tokio::task::spawn_blocking(move || {
                let mut cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
                replay::page(&shared, &mut cursor, from, limit)
            });
            page.await
                .unwrap_or_else(|error| Err(JournalError::unavailable(error)))
        })
    }

    /// Returns when the mark is noted. Whole segments before it are removed in the background, or kept as
    /// the files of later segments; the last segment always stays.
    fn trim(&self, to: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        let asked = {
            let segments = self.shared.segments();
            let useful = segments
                .get(1)
                .is_some_and(|segment| segment.first_lsn <= to.0);
            !useful || self.keeper.send(Request::Trim(to.0)).is_ok()
        };
        let noted = if asked {
            Ok(())
        } else {
            Err(self.shared.refusal())
        };
        Box::pin(std::future::ready(noted))
    }

    fn size_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.queue.close();
            self.shared.room.close();
            let mut finished = self.shared.finished.subscribe();
            // The sender lives in `shared`, so waiting cannot fail.
            let _ = finished.wait_for(|finished| *finished).await;
            // The thread said so as its last act; this takes microseconds.
            self.join();
        })
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.room.close();
        self.join();
    }
}

impl fmt::Debug for FileJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileJournal")
            .field("path", &self.shared.config.path)
            .field("tail", &self.shared.tail())
            .finish_non_exhaustive()
    }
}
