//! The one thread that writes: takes what came while it synced, writes it as one group, syncs, tells all.
//!
//! There is no timer. A lone append is written at once; under load the group is what came during the last
//! sync, so it grows with the load by itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::task::Waker;
use std::thread::JoinHandle;

use tidegate_core::port::JournalError;

use super::begin::{begin_again, begin_segment};
use super::format::{
    ALIGNMENT, GROUP_HEADER_BYTES, GroupHeader, SEGMENT_HEADER_BYTES, SegmentHeader, aligned,
};
use super::intake::{Batch, Begin, Pending};
use super::io::{DiskFile, write_all_at};
use super::keeper::Request;
use super::shared::Shared;

/// The segment that is written on.
pub(super) struct Active {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    /// Where the next group goes.
    pub(super) position: u64,
}

impl Active {
    /// A segment in which nothing is written yet.
    pub(super) fn new(header: SegmentHeader, path: PathBuf, file: Box<dyn DiskFile>) -> Self {
        Self {
            header,
            path,
            file,
            position: SEGMENT_HEADER_BYTES as u64,
        }
    }

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
    /// The group that is written, its header first.
    group: Vec<u8>,
    /// Who is told after a sync; kept for its room.
    wakers: Vec<Waker>,
    /// Something was written since the journal was opened.
    wrote: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, active: Active) -> Self {
        Self {
            next_lsn: shared.durable.tail(),
            shared,
            active,
            group: Vec::new(),
            wakers: Vec::new(),
            wrote: false,
        }
    }

    /// Starts the writer's thread, which ends when the intake is closed and empty. It lets go of `lock` last.
    pub(super) fn start(
        self,
        keeper: Sender<Request>,
        keeper_thread: JoinHandle<()>,
        lock: Box<dyn Send>,
    ) -> io::Result<JoinHandle<()>> {
        let ending = Ending {
            shared: Arc::clone(&self.shared),
            keeper,
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
        let mut batch = Batch::default();
        loop {
            self.shared.intake.take(&mut batch);
            if batch.appends.is_empty() {
                break;
            }
            if let Err(error) = self.write(&mut batch) {
                self.shared.set_poison(error);
            }
            batch.appends.clear();
            batch.encoded.clear();
            let kept_bytes = self.shared.config.group_bytes_max;
            batch.encoded.shrink_to(kept_bytes);
            self.group.shrink_to(kept_bytes);
        }
        self.mark_clean_close();
    }

    /// Writes a batch in as few groups as may be.
    fn write(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        let mut encoded = &batch.encoded[..];
        let mut appends = batch.appends.iter_mut().peekable();
        while let Some(first) = appends.peek_mut() {
            if let Some(error) = self.shared.poison() {
                return Err(error.clone());
            }
            if let Some(begin) = first.begin.take() {
                self.begin(begin)?;
            }
            let mut group = Group {
                first_lsn: first.first_lsn,
                records: 0,
                encoded_bytes: 0,
                planned_bytes: 0,
            };
            self.group.clear();
            self.group.resize(GROUP_HEADER_BYTES, 0);
            while let Some(append) = appends.next_if(|append| self.joins(&group, append)) {
                self.put(append, &mut encoded);
                group.records += append.records;
                group.encoded_bytes += append.need.encoded_bytes;
                group.planned_bytes += append.need.group_bytes;
            }
            self.write_group(&group)?;
        }
        Ok(())
    }

    /// True if the append belongs to the group that is being put together.
    fn joins(&self, group: &Group, append: &Pending) -> bool {
        let bytes = self.group.len() + append.need.encoded_bytes;
        let small = bytes <= self.shared.config.group_bytes_max;
        group.records == 0 || (append.begin.is_none() && small)
    }

    /// Adds an append to the group; if it is encoded already, from the head of `encoded`.
    fn put(&mut self, append: &mut Pending, encoded: &mut &[u8]) {
        if let Some(records) = append.large.take() {
            let stamp = self.active.header.stamp();
            for (lsn, record) in (append.first_lsn..).zip(&records) {
                stamp.encode_record(lsn, record, &mut self.group);
            }
        } else if let Some((head, rest)) = encoded.split_at_checked(append.need.encoded_bytes) {
            self.group.extend_from_slice(head);
            *encoded = rest;
        }
    }

    /// Writes the group, syncs it, and tells all who wait for it.
    fn write_group(&mut self, group: &Group) -> Result<(), JournalError> {
        if group.first_lsn != self.next_lsn || !self.active.fits(self.group.len()) {
            // The intake planned something else: what is on the disk no longer follows from what it told.
            return Err(JournalError::poisoned(
                "an append has no place where it was planned",
            ));
        }
        let before = self.active.position;
        self.sync_group(group.first_lsn, group.records)?;
        self.next_lsn += u64::from(group.records);
        self.wrote = true;
        // Before anybody is told, so that whoever is finds the room it had.
        self.shared.intake.done(
            self.active.header.first_lsn,
            group.encoded_bytes,
            group.planned_bytes,
            self.active.position - before,
        );
        self.shared.durable.advance(self.next_lsn, &mut self.wakers);
        Ok(())
    }

    /// Writes what the buffer holds as one group and syncs it.
    fn sync_group(&mut self, first_lsn: u64, records: u32) -> Result<(), JournalError> {
        let offset = self.active.position;
        let group = GroupHeader {
            offset,
            first_lsn,
            records,
            length: self.group.len() as u64,
        };
        let header = self.active.header.stamp().encode_group(&group);
        self.group[..GROUP_HEADER_BYTES].copy_from_slice(&header);
        let padded = self.group.len().next_multiple_of(ALIGNMENT as usize);
        self.group.resize(padded, 0);
        let Active { file, path, .. } = &self.active;
        let failed = |operation: &str, error: io::Error| {
            JournalError::poisoned(format_args!(
                "{operation} {} at offset {offset}: {error}",
                path.display()
            ))
        };
        write_all_at(&**file, &self.group, offset).map_err(|error| failed("write", error))?;
        file.sync_data().map_err(|error| failed("sync", error))?;
        self.active.position = offset + padded as u64;
        Ok(())
    }

    /// Goes on in another segment.
    fn begin(&mut self, begin: Begin) -> Result<(), JournalError> {
        match begin {
            Begin::Next(file, header) => {
                self.active = begin_segment(&self.shared, file, header)?;
            }
            Begin::Again(header) => begin_again(&self.shared, &mut self.active, header)?,
        }
        self.shared.intake.begun();
        Ok(())
    }

    /// Writes an empty group, so that damage to the last records is told from a torn tail.
    fn mark_clean_close(&mut self) {
        if !self.wrote || self.shared.poison().is_some() || !self.active.fits(GROUP_HEADER_BYTES) {
            return;
        }
        self.group.clear();
        self.group.resize(GROUP_HEADER_BYTES, 0);
        if let Err(error) = self.sync_group(self.next_lsn, 0) {
            self.shared.set_poison(error);
        }
    }
}

/// What is written and synced together.
struct Group {
    first_lsn: u64,
    records: u32,
    encoded_bytes: usize,
    /// What the intake had planned for it.
    planned_bytes: u64,
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
        self.shared.intake.close();
        self.shared.durable.stop();
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
