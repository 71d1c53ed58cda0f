//! The thread that makes segments ready ahead of the writer and removes those that are trimmed, so that the
//! writer waits for neither.
//!
//! It answers its requests in order: a trim that was asked for before an append has made its room by the time
//! that append needs a segment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_core::port::JournalError;

use super::error::{poisoned, unavailable};
use super::format::READY_NAME;
use super::io::is_full;
use super::segment::{ReadyFile, SegmentFile, make_ready};
use super::shared::Shared;

/// The file in which a segment of unusual size is made; removed at open like all of this ending.
const LARGE_PARTIAL_NAME: &str = "large.partial";
const NEXT_PARTIAL_NAME: &str = "next.partial";
/// The file that was handed to the writer, until the writer names it as a segment.
const BEGIN_PARTIAL_NAME: &str = "begin.partial";

/// What the keeper is asked to do.
pub(super) enum Request {
    /// Have a segment of the usual size ready.
    Prepare,
    /// Hand over a segment of this size.
    Segment {
        bytes: u64,
        answer: mpsc::SyncSender<Result<ReadyFile, JournalError>>,
    },
    /// Remove the segments whose records are all before this lsn.
    Trim(u64),
    /// End.
    Stop,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    ready: Option<ReadyFile>,
    /// When there was no room last, and what was said.
    full: Option<(Duration, JournalError)>,
    started: Instant,
}

/// Starts the keeper's thread. `ready` is a segment that an earlier run made ready.
pub(super) fn start(
    shared: Arc<Shared>,
    ready: Option<ReadyFile>,
) -> io::Result<(Sender<Request>, JoinHandle<()>)> {
    let (sender, requests) = channel();
    #[expect(
        clippy::disallowed_methods,
        reason = "an adapter's own pause after a full disk; nothing of the layer depends on it"
    )]
    let started = Instant::now();
    let keeper = Keeper {
        shared,
        ready,
        full: None,
        started,
    };
    let thread = std::thread::Builder::new()
        .name("journal-keeper".into())
        .spawn(move || keeper.run(&requests))?;
    Ok((sender, thread))
}

impl Keeper {
    fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            match request {
                Request::Prepare => {
                    if let Err(error) = self.prepare() {
                        tracing::debug!(%error, "no segment is ready ahead");
                    }
                }
                Request::Segment { bytes, answer } => {
                    // If the writer is gone, the file is removed as a leftover at the next open.
                    let _ = answer.send(self.segment(bytes));
                }
                Request::Trim(to) => self.trim(to),
                Request::Stop => break,
            }
        }
    }

    fn segment(&mut self, bytes: u64) -> Result<ReadyFile, JournalError> {
        if bytes == self.shared.config.segment_bytes {
            self.prepare()?;
            if let Some(ready) = self.ready.take() {
                return self.hand_over(ready);
            }
        }
        if self.over(bytes).is_some() {
            self.give_up_ready();
        }
        self.make(bytes, LARGE_PARTIAL_NAME)
    }

    /// Gives a file a name of its own before the writer has it: the next one made ready, perhaps while the
    /// writer still syncs this one's header, must not take its place.
    fn hand_over(&mut self, mut ready: ReadyFile) -> Result<ReadyFile, JournalError> {
        let path = self.shared.config.path.join(BEGIN_PARTIAL_NAME);
        match self.shared.disk.rename(&ready.path, &path) {
            Ok(()) => {
                ready.path = path;
                Ok(ready)
            }
            Err(error) => {
                let failed = self.failed("rename", &ready, &error);
                self.ready = Some(ready);
                Err(failed)
            }
        }
    }

    fn prepare(&mut self) -> Result<(), JournalError> {
        if self.ready.is_some() {
            return Ok(());
        }
        let mut made = self.make(self.shared.config.segment_bytes, NEXT_PARTIAL_NAME)?;
        let path = self.shared.config.path.join(READY_NAME);
        if let Err(error) = self.shared.disk.rename(&made.path, &path) {
            self.shared.bytes.fetch_sub(made.bytes, Ordering::AcqRel);
            let _ = self.shared.disk.remove(&made.path);
            return Err(self.failed("rename", &made, &error));
        }
        made.path = path;
        self.ready = Some(made);
        Ok(())
    }

    /// How much `bytes` more would be, if that is too much.
    fn over(&self, bytes: u64) -> Option<u64> {
        let would_be = self.shared.bytes.load(Ordering::Acquire) + bytes;
        (would_be > self.shared.config.bytes_max).then_some(would_be)
    }

    fn make(&mut self, bytes: u64, name: &str) -> Result<ReadyFile, JournalError> {
        if let Some(would_be) = self.over(bytes) {
            return Err(JournalError::full(format_args!(
                "one more segment would make {would_be} bytes, bytes_max is {}",
                self.shared.config.bytes_max
            )));
        }
        if let Some((when, error)) = &self.full
            && self.started.elapsed() < *when + self.shared.config.space_retry
        {
            return Err(error.clone());
        }
        let path = self.shared.config.path.join(name);
        self.shared.bytes.fetch_add(bytes, Ordering::AcqRel);
        let stopping = &self.shared.stopping;
        match make_ready(&*self.shared.disk, path.clone(), bytes, &|| {
            stopping.load(Ordering::Acquire)
        }) {
            Ok(made) => {
                self.full = None;
                Ok(made)
            }
            Err(error) => {
                self.shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
                if !is_full(&error) {
                    return Err(poisoned("prepare", &path, &error));
                }
                let error = JournalError::full(format_args!("prepare {}: {error}", path.display()));
                self.full = Some((self.started.elapsed(), error.clone()));
                Err(error)
            }
        }
    }

    fn failed(&self, operation: &str, file: &ReadyFile, error: &io::Error) -> JournalError {
        if is_full(error) {
            JournalError::full(format_args!("{operation} {}: {error}", file.path.display()))
        } else {
            poisoned(operation, &file.path, error)
        }
    }

    /// Makes room for a segment of unusual size.
    fn give_up_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            match self.shared.disk.remove(&ready.path) {
                Ok(()) => {
                    self.shared.bytes.fetch_sub(ready.bytes, Ordering::AcqRel);
                }
                Err(_) => self.ready = Some(ready),
            }
        }
    }

    fn trim(&mut self, to: u64) {
        while let Some(segment) = self.trimmed(to) {
            if let Err(error) = self.remove(segment) {
                // The records are not needed and do no harm; the next trim tries again.
                tracing::warn!(%error, "a trimmed segment stays");
                break;
            }
        }
    }

    /// The oldest segment, if all its records are before `to`. The last is written on and always stays.
    fn trimmed(&self, to: u64) -> Option<SegmentFile> {
        let segments = self.shared.segments();
        let next = segments.get(1)?;
        (next.first_lsn <= to)
            .then(|| segments.front().copied())
            .flatten()
    }

    /// Removes the oldest segment, or keeps its file as the next one's. The folder is synced each time, so
    /// that no crash can leave a gap.
    fn remove(&mut self, segment: SegmentFile) -> Result<(), JournalError> {
        let shared = Arc::clone(&self.shared);
        let folder = &shared.config.path;
        let path = segment.path(folder);
        let reading = shared.removal.write();
        let _guard = reading.unwrap_or_else(PoisonError::into_inner);
        let recycled = self.ready.is_none() && segment.bytes == shared.config.segment_bytes;
        let ready = folder.join(READY_NAME);
        let file = if recycled {
            let file = shared
                .disk
                .open(&path)
                .and_then(|file| shared.disk.rename(&path, &ready).map(|()| file))
                .map_err(|error| unavailable("rename", &path, &error))?;
            Some(file)
        } else {
            shared
                .disk
                .remove(&path)
                .map_err(|error| unavailable("remove", &path, &error))?;
            None
        };
        shared.segments().pop_front();
        self.full = None;
        let synced = shared.disk.sync_folder(folder);
        match file {
            // A file whose old name might come back is not written on.
            Some(file) if synced.is_ok() => {
                self.ready = Some(ReadyFile {
                    path: ready,
                    file,
                    bytes: segment.bytes,
                });
            }
            _ => {
                shared.bytes.fetch_sub(segment.bytes, Ordering::AcqRel);
            }
        }
        synced.map_err(|error| unavailable("sync", folder, &error))
    }
}
