//! The journal's handle: opens the folder, starts the threads, speaks the port.

use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tidegate_core::port::{BoxFuture, Journal, JournalError, Lsn, Replayed};
use tokio::sync::oneshot;

use super::begin::begin_first;
use super::config::JournalConfig;
use super::error::{corrupt, unavailable};
use super::format::{ALIGNMENT, LOCK_NAME, SEGMENT_BYTES_MIN, again_name, ready_name};
use super::intake::{Intake, Need, Wish, closed};
use super::io::{Disk, RealDisk, is_full};
use super::keeper::{self, Request};
use super::recovery::{Last, Recovered, recover};
use super::replay::{self, Cursor};
use super::segment::{ReadyFile, make_ready};
use super::shared::Shared;
use super::writer::{Active, Writer};

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
        let Recovered {
            segments,
            last,
            again,
            ready,
        } = recover(&*disk, &folder)?;
        // What an earlier process named or removed may be in the cache alone; from here on it is relied on.
        disk.sync_folder(&folder)
            .map_err(|error| unavailable("sync", &folder, &error))?;
        let next_ready = ready.iter().max().map_or(0, |number| number + 1);
        let mut spares = Vec::new();
        for number in ready {
            spares.extend(reuse_ready(&*disk, &config, number)?);
        }
        let mut bytes = segments.iter().map(|segment| segment.bytes).sum::<u64>()
            + config.segment_bytes * spares.len() as u64;
        let (active, tail, segments) = match last {
            Some(Last { reader, position }) => {
                let active = Active {
                    header: reader.header,
                    path: reader.path,
                    file: reader.file,
                    position,
                };
                (active, reader.next_lsn, segments)
            }
            None => {
                let (file, first_lsn) = match (again, spares.pop()) {
                    (Some(lsn), spare) => {
                        spares.extend(spare);
                        let file = resume_again(&*disk, &folder, lsn)?;
                        bytes += file.bytes;
                        (file, lsn)
                    }
                    (None, Some(spare)) => (spare, 1),
                    (None, None) => {
                        bytes += config.segment_bytes;
                        (make_first(&*disk, &config)?, 1)
                    }
                };
                let (active, segment) = begin_first(&*disk, &folder, file, first_lsn)?;
                (active, first_lsn, vec![segment])
            }
        };
        let intake = Intake::new(
            config.queued_bytes_max,
            active.header,
            active.position,
            tail,
        );
        let shared = Arc::new(Shared::new(
            config,
            disk,
            segments.into(),
            bytes,
            intake,
            tail,
        ));
        let no_thread = |error| unavailable("start a thread for", &folder, &error);
        let (keeper, keeper_thread) =
            keeper::start(Arc::clone(&shared), spares, next_ready).map_err(no_thread)?;
        let writer = Writer::new(Arc::clone(&shared), active);
        let thread = writer
            .start(keeper.clone(), keeper_thread, lock)
            .map_err(no_thread)?;
        Ok(Self {
            shared,
            keeper,
            thread: Mutex::new(Some(thread)),
            cursor: Arc::default(),
        })
    }

    /// What records need, if they are within the limits.
    fn need(&self, records: &[Bytes]) -> Result<Need, JournalError> {
        let need = Need::of(records)?;
        let config = &self.shared.config;
        // A segment of their own is made beside the one that is written on.
        if need.segment_bytes > config.bytes_max - config.segment_bytes {
            return Err(JournalError::too_large(format_args!(
                "an append of {} bytes needs more than bytes_max, which is {}, has beside one segment",
                need.encoded_bytes, config.bytes_max
            )));
        }
        Ok(need)
    }

    fn take(&self, records: &[Bytes], need: Need) -> Result<Lsn, JournalError> {
        if let Some(error) = self.shared.poison() {
            return Err(error.clone());
        }
        let one_segment = || self.shared.one_segment();
        let (last, wish) = self.shared.intake.submit(records, need, one_segment)?;
        if wish == Wish::Prepare {
            // Without a keeper there is no next segment either, which is told when it is needed.
            let _ = self.keeper.send(Request::Prepare);
        }
        Ok(last)
    }

    async fn wait_durable(&self, last: Lsn) -> Result<(), JournalError> {
        if self.shared.durable.reached(last.0).await {
            Ok(())
        } else {
            Err(self.shared.refusal())
        }
    }

    async fn wait_for_room(&self, need: Need) -> Result<(), JournalError> {
        let intake = &self.shared.intake;
        loop {
            let written = intake.written.notified();
            let mut written = std::pin::pin!(written);
            // From here on nothing that is written is missed.
            written.as_mut().enable();
            if let Some(error) = self.shared.poison() {
                return Err(error.clone());
            }
            if intake.is_closed() {
                return Err(closed());
            }
            if intake.has_memory() {
                break;
            }
            written.await;
        }
        let (answer, answered) = oneshot::channel();
        let asked = self.keeper.send(Request::Room { need, answer });
        match (asked, answered.await) {
            (Ok(()), Ok(room)) => room,
            _ => Err(self.shared.refusal()),
        }
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
fn reuse_ready(
    disk: &dyn Disk,
    config: &JournalConfig,
    number: u64,
) -> Result<Option<ReadyFile>, JournalError> {
    let path = config.path.join(ready_name(number));
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

/// The file of a segment that was about to start over.
fn resume_again(disk: &dyn Disk, folder: &Path, lsn: u64) -> Result<ReadyFile, JournalError> {
    let path = folder.join(again_name(lsn));
    let failed = |error| unavailable("open", &path, &error);
    let file = disk.open(&path).map_err(failed)?;
    let bytes = file.bytes().map_err(failed)?;
    if bytes < SEGMENT_BYTES_MIN || !bytes.is_multiple_of(ALIGNMENT) {
        return Err(corrupt(
            &path,
            bytes,
            "the file has not the size of a segment",
        ));
    }
    Ok(ReadyFile { path, file, bytes })
}

/// The file of a new journal's first segment.
fn make_first(disk: &dyn Disk, config: &JournalConfig) -> Result<ReadyFile, JournalError> {
    let path = config.path.join("first.partial");
    let bytes = config.segment_bytes;
    make_ready(disk, &path, path.clone(), bytes, &|| false).map_err(|error| {
        if is_full(&error) {
            JournalError::full(format_args!("prepare {}: {error}", path.display()))
        } else {
            unavailable("prepare", &path, &error)
        }
    })
}

impl Journal for FileJournal {
    /// Records of one submission are never split over two segments.
    fn submit(&self, records: &[Bytes]) -> Result<Lsn, JournalError> {
        let need = self.need(records)?;
        self.take(records, need)
    }

    fn wait(&self, last: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(self.wait_durable(last))
    }

    fn synced(&self) -> Lsn {
        Lsn(self.shared.durable.tail() - 1)
    }

    /// Waits as long as `queued_bytes_max` bytes are on their way to the disk, and for the next segment to be
    /// made ready.
    fn room(&self, records: &[Bytes]) -> BoxFuture<'_, Result<(), JournalError>> {
        let need = self.need(records);
        Box::pin(async move { self.wait_for_room(need?).await })
    }

    fn append(&self, records: Vec<Bytes>) -> BoxFuture<'_, Result<Lsn, JournalError>> {
        // Once here, and no box for each step.
        Box::pin(async move {
            let need = self.need(&records)?;
            let last = loop {
                match self.take(&records, need) {
                    Err(JournalError::Busy { .. }) => self.wait_for_room(need).await?,
                    taken => break taken?,
                }
            };
            drop(records);
            self.wait_durable(last).await?;
            Ok(last)
        })
    }

    fn tail(&self) -> Lsn {
        Lsn(self.shared.durable.tail())
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
        let to = self.shared.intake.trim(to.0);
        let asked = {
            let segments = self.shared.segments();
            let useful = segments
                .get(1)
                .is_some_and(|segment| segment.first_lsn <= to);
            !useful || self.keeper.send(Request::Trim(to)).is_ok()
        };
        let noted = if asked {
            Ok(())
        } else {
            Err(self.shared.refusal())
        };
        Box::pin(std::future::ready(noted))
    }

    /// The end of the oldest segment, when the segments in use are more than half of `bytes_max`, or the disk
    /// is full, and nothing but that segment's records keeps it.
    fn crowded_before(&self) -> Option<Lsn> {
        let shared = &self.shared;
        let (trimmed, full) = (shared.intake.trimmed(), shared.intake.is_full());
        let segments = shared.segments();
        let end = segments.get(1)?.first_lsn;
        let crowded = || {
            let used: u64 = segments.iter().map(|segment| segment.bytes).sum();
            used > shared.config.bytes_max / 2
        };
        (trimmed < end && (full || crowded())).then_some(Lsn(end))
    }

    fn size_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    fn size_bytes_max(&self) -> Option<u64> {
        Some(self.shared.config.bytes_max)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.intake.close();
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
        self.shared.intake.close();
        self.join();
    }
}

impl fmt::Debug for FileJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileJournal")
            .field("path", &self.shared.config.path)
            .field("tail", &self.shared.durable.tail())
            .finish_non_exhaustive()
    }
}
