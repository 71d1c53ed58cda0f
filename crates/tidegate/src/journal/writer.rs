//! The one thread that writes: takes what queued while it synced, writes it as one group, syncs, answers all.
//!
//! There is no timer. A lone append is written at once; under load the group is what came during the last
//! sync, so it grows with the load by itself.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, sync_channel};
use std::thread::JoinHandle;

use tidegate_core::port::{JournalError, Lsn};
use tokio::sync::oneshot;

use super::error::poisoned;
use super::format::{
    ALIGNMENT, GROUP_HEADER_BYTES, GroupHeader, SEGMENT_HEADER_BYTES, SegmentHeader, aligned,
    segment_name,
};
use super::io::{DiskFile, is_full, write_all_at};
use super::keeper::Request;
use super::random::random;
use super::segment::{ReadyFile, SegmentFile};
use super::shared::{Pending, Shared};

/// The segment that is written on.
pub(super) struct Active {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    /// Where the next group goes.
    pub(super) position: u64,
}

impl Active {
    /// True if a group of this many bytes fits behind what is there.
    fn fits(&self, group_bytes: usize) -> bool {
        self.position
            .checked_add(group_bytes as u64)
            .is_some_and(|end| aligned(end) <= self.header.bytes)
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Active,
    next_lsn: u64,
    buffer: Vec<u8>,
    keeper: Sender<Request>,
    /// The keeper was told to have the next segment ready.
    prepared: bool,
    /// Something was written since the journal was opened.
    wrote: bool,
}

type Answer = oneshot::Sender<Result<Lsn, JournalError>>;

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, active: Active, keeper: Sender<Request>) -> Self {
        Self {
            next_lsn: shared.tail(),
            shared,
            active,
            buffer: Vec::new(),
            keeper,
            prepared: false,
            wrote: false,
        }
    }

    /// Starts the writer's thread, which ends when the queue is closed and empty. It lets go of `lock` last.
    pub(super) fn start(
        self,
        keeper_thread: JoinHandle<()>,
        lock: Box<dyn Send>,
    ) -> io::Result<JoinHandle<()>> {
        let ending = Ending {
            shared: Arc::clone(&self.shared),
            keeper: self.keeper.clone(),
            keeper_thread: Some(keeper_thread),
            lock: Some(lock),
        };
        std::thread::Builder::new()
            .name("journal-writer".into())
            .spawn(move || {
                let _ending = ending;
                self.run();
            })
    }

    fn run(mut self) {
        let mut pending = VecDeque::new();
        loop {
            let wait = pending.is_empty();
            self.shared.queue.take(&mut pending, wait);
            if pending.is_empty() {
                break;
            }
            self.step(&mut pending);
        }
        self.mark_clean_close();
    }

    /// Writes one group of what is pending, or refuses what cannot be written.
    fn step(&mut self, pending: &mut VecDeque<Pending>) {
        if let Some(error) = self.shared.poison() {
            for append in pending.drain(..) {
                answer(append.answer, Err(error.clone()));
            }
            return;
        }
        let first_bytes = pending.front().map_or(0, |append| append.encoded_bytes);
        if !self.active.fits(GROUP_HEADER_BYTES + first_bytes)
            && let Err(error) = self.rotate(GROUP_HEADER_BYTES + first_bytes)
        {
            // Others may be smaller and still fit, unless the journal is poisoned: the next step tells.
            if let Some(append) = pending.pop_front() {
                answer(append.answer, Err(error));
            }
            return;
        }
        let mut answers: Vec<(Answer, Lsn)> = Vec::with_capacity(pending.len());
        let mut rooms = Vec::with_capacity(pending.len());
        let first_lsn = self.next_lsn;
        let mut lsn = first_lsn;
        self.buffer.clear();
        self.buffer.resize(GROUP_HEADER_BYTES, 0);
        let stamp = self.active.header.stamp();
        while let Some(append) = pending.front() {
            let grown = self.buffer.len() + append.encoded_bytes;
            let full = grown > self.shared.config.group_bytes_max || !self.active.fits(grown);
            if full && !answers.is_empty() {
                break;
            }
            let Some(append) = pending.pop_front() else {
                break;
            };
            for record in &append.records {
                stamp.encode_record(lsn, record, &mut self.buffer);
                lsn += 1;
            }
            answers.push((append.answer, Lsn(lsn - 1)));
            rooms.push(append.room);
        }
        let written = self.write_group(first_lsn, lsn - first_lsn);
        if written.is_ok() {
            self.next_lsn = lsn;
            self.shared.set_tail(lsn);
            self.wrote = true;
        }
        let written = written.map_err(|error| self.shared.set_poison(error));
        // Before the answers, so that whoever gets one finds the room it had.
        drop(rooms);
        for (sender, last) in answers {
            answer(sender, written.clone().map(|()| last));
        }
        self.prepare_ahead();
        if self.buffer.capacity() / 2 > self.shared.config.group_bytes_max {
            self.buffer = Vec::new();
        }
    }

    /// Writes what the buffer holds as one group and syncs it.
    fn write_group(&mut self, first_lsn: u64, records: u64) -> Result<(), JournalError> {
        let offset = self.active.position;
        let group = GroupHeader {
            offset,
            first_lsn,
            // An append has fewer bytes than this has numbers, and so has a group.
            records: u32::try_from(records).unwrap_or(u32::MAX),
            length: self.buffer.len() as u64,
        };
        let header = self.active.header.stamp().encode_group(&group);
        self.buffer[..GROUP_HEADER_BYTES].copy_from_slice(&header);
        let padded = self.buffer.len().next_multiple_of(ALIGNMENT as usize);
        self.buffer.resize(padded, 0);
        let Active { file, path, .. } = &self.active;
        let failed = |operation: &str, error: io::Error| {
            JournalError::poisoned(format_args!(
                "{operation} {} at offset {offset}: {error}",
                path.display()
            ))
        };
        write_all_at(&**file, &self.buffer, offset).map_err(|error| failed("write", error))?;
        file.sync_data().map_err(|error| failed("sync", error))?;
        self.active.position = offset + padded as u64;
        Ok(())
    }

    /// Goes on in a new segment that has room for a group of `group_bytes`.
    fn rotate(&mut self, group_bytes: usize) -> Result<(), JournalError> {
        let needed = aligned(SEGMENT_HEADER_BYTES as u64 + group_bytes as u64);
        let bytes = needed.max(self.shared.config.segment_bytes);
        let (sender, receiver) = sync_channel(1);
        let request = Request::Segment {
            bytes,
            answer: sender,
        };
        let ready = match self.keeper.send(request).ok().and(receiver.recv().ok()) {
            Some(Ok(ready)) => ready,
            Some(Err(error @ JournalError::Full { .. })) => return Err(error),
            Some(Err(error)) => return Err(self.shared.set_poison(error)),
            None => {
                let error = JournalError::poisoned("the thread that makes segments ready ended");
                return Err(self.shared.set_poison(error));
            }
        };
        let header = SegmentHeader {
            first_lsn: self.next_lsn,
            salt: random(),
            bytes,
            ..self.active.header
        };
        self.active = begin_segment(&self.shared, ready, header)?;
        self.prepared = false;
        Ok(())
    }

    /// Has the keeper make the next segment ready when this one is half full: late enough for a trim to hand
    /// its file on meanwhile, early enough to be done in time.
    fn prepare_ahead(&mut self) {
        if !self.prepared && self.active.position > self.active.header.bytes / 2 {
            self.prepared = self.keeper.send(Request::Prepare).is_ok();
        }
    }

    /// Writes an empty group, so that damage to the last records is told from a torn tail.
    fn mark_clean_close(&mut self) {
        if !self.wrote || self.shared.poison().is_some() || !self.active.fits(GROUP_HEADER_BYTES) {
            return;
        }
        self.buffer.clear();
        self.buffer.resize(GROUP_HEADER_BYTES, 0);
        if let Err(error) = self.write_group(self.next_lsn, 0) {
            self.shared.set_poison(error);
        }
    }
}

/// Makes a ready file the segment of `header` and the last in the list.
///
/// The header is durable before the file has a segment's name, and the name before a record is written, so a
/// segment without a valid header is damage and never the work of a crash.
pub(super) fn begin_segment(
    shared: &Shared,
    ready: ReadyFile,
    header: SegmentHeader,
) -> Result<Active, JournalError> {
    let folder = &shared.config.path;
    let path = folder.join(segment_name(header.first_lsn));
    let named = write_all_at(&*ready.file, &header.encode(), 0)
        .and_then(|()| ready.file.sync_data())
        .and_then(|()| shared.disk.rename(&ready.path, &path));
    if let Err(error) = named {
        if !is_full(&error) {
            return Err(shared.set_poison(poisoned("begin", &path, &error)));
        }
        // It has no segment's name yet, so nothing depends on it.
        if shared.disk.remove(&ready.path).is_ok() {
            shared.bytes.fetch_sub(ready.bytes, Ordering::AcqRel);
        }
        return Err(JournalError::full(format_args!(
            "begin {}: {error}",
            path.display()
        )));
    }
    if let Err(error) = shared.disk.sync_folder(folder) {
        return Err(shared.set_poison(poisoned("sync", folder, &error)));
    }
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
    Ok(Active {
        header,
        path,
        file: ready.file,
        position: SEGMENT_HEADER_BYTES as u64,
    })
}

fn answer(sender: Answer, answer: Result<Lsn, JournalError>) {
    // Nobody listens when the future was dropped.
    let _ = sender.send(answer);
}

/// Lets go of everything when the writer ends, also by a panic: nobody may wait for an answer for ever.
struct Ending {
    shared: Arc<Shared>,
    keeper: Sender<Request>,
    keeper_thread: Option<JoinHandle<()>>,
    lock: Option<Box<dyn Send>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.room.close();
        // What is dropped unanswered is refused by its own receiver.
        let mut left: Vec<Pending> = Vec::new();
        self.shared.queue.take(&mut left, false);
        drop(left);
        self.shared.stopping.store(true, Ordering::Release);
        let stopped = self.keeper.send(Request::Stop);
        if let (Ok(()), Some(thread)) = (stopped, self.keeper_thread.take()) {
            // A panic of the keeper was printed where it happened.
            let _ = thread.join();
        }
        self.lock = None;
        self.shared.finished.send_replace(true);
    }
}
