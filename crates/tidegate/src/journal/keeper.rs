//! The thread that makes segments ready ahead of the writer and removes those that are trimmed, so that
//! neither the writer nor who submits waits for that.
//!
//! It answers its requests in order: a trim that was asked for before an append has made its room by the time
//! that append asks for it.

use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_core::port::JournalError;
use tokio::sync::oneshot;

use super::error::{poisoned, unavailable};
use super::format::{PARTIAL_SUFFIX, ready_name};
use super::intake::{Need, closed};
use super::io::is_full;
use super::segment::{ReadyFile, SegmentFile, make_ready};
use super::shared::Shared;

/// Files of trimmed segments that are kept for later ones, beside the next: as many as a flush of much frees
/// at once.
const SPARES_MAX: usize = 4;

/// What the keeper is asked to do.
pub(super) enum Request {
    /// Have a segment of the usual size ready.
    Prepare,
    /// See that records of this need have room; or tell why they have none.
    Room {
        need: Need,
        answer: oneshot::Sender<Result<(), JournalError>>,
    },
    /// Remove the segments whose records are all before this lsn.
    Trim(u64),
    /// End.
    Stop,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    /// All of the usual size.
    spares: Vec<ReadyFile>,
    /// The number in the name of the next file made ready.
    next_ready: u64,
    /// When there was no room last, and what was said.
    full: Option<(Duration, JournalError)>,
    started: Instant,
}

/// Starts the keeper's thread. `spares` are segments that an earlier run made ready; names from `next_ready`
/// on are free.
pub(super) fn start(
    shared: Arc<Shared>,
    spares: Vec<ReadyFile>,
    next_ready: u64,
) -> io::Result<(Sender<Request>, JoinHandle<()>)> {
    let (sender, requests) = channel();
    #[expect(
        clippy::disallowed_methods,
        reason = "an adapter's own pause after a full disk; nothing of the layer depends on it"
    )]
    let started = Instant::now();
    let keeper = Keeper {
        shared,
        spares,
        next_ready,
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
                Request::Room { need, answer } => {
                    // Nobody listens when the future was dropped.
                    let _ = answer.send(self.room(need));
                }
                Request::Trim(to) => self.trim(to),
                Request::Stop => break,
            }
        }
    }

    fn room(&mut self, need: Need) -> Result<(), JournalError> {
        let shared = Arc::clone(&self.shared);
        let has_place = || shared.intake.has_place(need, || shared.one_segment());
        if has_place() {
            return Ok(());
        }
        let made = if need.segment_bytes <= shared.config.segment_bytes {
            self.prepare()
        } else {
            self.prepare_large(need.segment_bytes)
        };
        match made {
            Ok(()) => Ok(()),
            Err(error @ JournalError::Full { .. }) => {
                shared.intake.set_full(true);
                // The last segment may start over now.
                if has_place() { Ok(()) } else { Err(error) }
            }
            Err(_) if shared.stopping.load(Ordering::Acquire) => Err(closed()),
            Err(error) => Err(shared.set_poison(error)),
        }
    }

    fn prepare(&mut self) -> Result<(), JournalError> {
        let segment_bytes = self.shared.config.segment_bytes;
        if self.shared.intake.has_next() {
            return Ok(());
        }
        let file = match self.spares.pop() {
            Some(spare) => spare,
            None => self.make(segment_bytes)?,
        };
        self.set_next(file);
        Ok(())
    }

    /// A record too large for the usual segment gets one of its own.
    fn prepare_large(&mut self, bytes: u64) -> Result<(), JournalError> {
        while self.over(bytes).is_some() {
            let Some(spare) = self.spares.pop().or_else(|| self.shared.intake.take_next()) else {
                break;
            };
            self.give_up(&spare)?;
        }
        let file = self.make(bytes)?;
        self.set_next(file);
        Ok(())
    }

    fn set_next(&mut self, file: ReadyFile) {
        if let Some(earlier) = self.shared.intake.set_next(file) {
            if earlier.bytes == self.shared.config.segment_bytes {
                self.spares.push(earlier);
            } else if let Err(error) = self.give_up(&earlier) {
                tracing::warn!(%error, "a file that is not needed stays until the next start");
            }
        }
    }

    /// How much `bytes` more would be, if that is too much.
    fn over(&self, bytes: u64) -> Option<u64> {
        let would_be = self.shared.bytes.load(Ordering::Acquire) + bytes;
        (would_be > self.shared.config.bytes_max).then_some(would_be)
    }

    fn make(&mut self, bytes: u64) -> Result<ReadyFile, JournalError> {
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
        let folder = &self.shared.config.path;
        let name = ready_name(self.next_ready);
        let partial = folder.join(format!("{name}{PARTIAL_SUFFIX}"));
        let path = folder.join(name);
        self.shared.bytes.fetch_add(bytes, Ordering::AcqRel);
        let stopping = &self.shared.stopping;
        let made = make_ready(&*self.shared.disk, &partial, path.clone(), bytes, &|| {
            stopping.load(Ordering::Acquire)
        });
        match made {
            Ok(made) => {
                self.next_ready += 1;
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

    /// Makes room for something else.
    fn give_up(&self, file: &ReadyFile) -> Result<(), JournalError> {
        let removed = self.shared.disk.remove(&file.path);
        removed.map_err(|error| poisoned("remove", &file.path, &error))?;
        self.shared.bytes.fetch_sub(file.bytes, Ordering::AcqRel);
        Ok(())
    }

    fn trim(&mut self, to: u64) {
        while let Some(segment) = self.trimmed(to) {
            if let Err(error) = self.remove(segment) {
                // The records are not needed and do no harm; the next trim tries again.
                tracing::warn!(%error, "a trimmed segment stays");
                break;
            }
        }
        // Whoever needs it next does not have to ask.
        if !self.shared.intake.has_next()
            && let Some(spare) = self.spares.pop()
        {
            self.set_next(spare);
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

    /// Removes the oldest segment, or keeps its file for a later one. The folder is synced each time, so that
    /// no crash can leave a gap.
    fn remove(&mut self, segment: SegmentFile) -> Result<(), JournalError> {
        let shared = Arc::clone(&self.shared);
        let folder = &shared.config.path;
        let path = segment.path(folder);
        let reading = shared.removal.write();
        let _guard = reading.unwrap_or_else(PoisonError::into_inner);
        let usual = segment.bytes == shared.config.segment_bytes;
        let ready = folder.join(ready_name(self.next_ready));
        let file = if usual && self.spares.len() < SPARES_MAX {
            let file = shared
                .disk
                .open(&path)
                .and_then(|file| shared.disk.rename(&path, &ready).map(|()| file))
                .map_err(|error| unavailable("rename", &path, &error))?;
            self.next_ready += 1;
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
        shared.intake.set_full(false);
        let synced = shared.disk.sync_folder(folder);
        match file {
            // A file whose old name might come back is not written on.
            Some(file) if synced.is_ok() => self.spares.push(ReadyFile {
                path: ready,
                file,
                bytes: segment.bytes,
            }),
            _ => {
                shared.bytes.fetch_sub(segment.bytes, Ordering::AcqRel);
            }
        }
        synced.map_err(|error| unavailable("sync", folder, &error))
    }
}
