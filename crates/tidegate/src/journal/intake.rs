//! The way in: gives records their places and their room, and holds them until the writer takes them.
//!
//! What is taken here has room on the disk before its caller is told its place: each append is planned into
//! the segment that is written on, or into the next one, which must be there already. The plan assumes the
//! worst, that each append becomes a group of its own, and is corrected when the writer has written.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidegate_core::port::{JournalError, Lsn};
use tokio::sync::Notify;

use super::format::{
    APPEND_BYTES_MAX, GROUP_HEADER_BYTES, RECORD_BYTES_MAX, RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES, SegmentHeader, aligned,
};
use super::random::random;
use super::segment::ReadyFile;

/// Appends of up to this many bytes are encoded where they come in, under the lock: that takes a microsecond
/// or two, and the writer has only to copy them. The bytes of larger ones are shared, and encoded by it.
const ENCODED_AT_ONCE_BYTES: usize = 16 << 10;

/// What records need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// The records, encoded.
    pub(super) encoded_bytes: usize,
    /// A group of them alone.
    pub(super) group_bytes: u64,
    /// A segment of them alone.
    pub(super) segment_bytes: u64,
}

impl Need {
    /// What these records need, if they are within the format's limits.
    pub(super) fn of(records: &[Bytes]) -> Result<Self, JournalError> {
        let mut sum: usize = 0;
        for record in records {
            if record.len() > RECORD_BYTES_MAX {
                return Err(JournalError::too_large(format_args!(
                    "a record of {} bytes is over the limit of {RECORD_BYTES_MAX}",
                    record.len()
                )));
            }
            sum = sum.saturating_add(RECORD_HEADER_BYTES + record.len());
        }
        if sum > APPEND_BYTES_MAX {
            return Err(JournalError::too_large(format_args!(
                "an append of {sum} bytes is over the limit of {APPEND_BYTES_MAX}"
            )));
        }
        let group_bytes = aligned((GROUP_HEADER_BYTES + sum) as u64);
        Ok(Self {
            encoded_bytes: sum,
            group_bytes,
            segment_bytes: SEGMENT_HEADER_BYTES as u64 + group_bytes,
        })
    }
}

/// How the segment of an append begins, if not with an earlier one.
pub(super) enum Begin {
    /// In this file.
    Next(ReadyFile, SegmentHeader),
    /// In the file that is written on, of which nothing is needed any more.
    Again(SegmentHeader),
}

/// An append on its way to the writer.
pub(super) struct Pending {
    pub(super) begin: Option<Begin>,
    /// The lsn of the first record, and how many there are.
    pub(super) first_lsn: u64,
    pub(super) records: u32,
    pub(super) need: Need,
    /// The records that were not encoded at once.
    pub(super) large: Option<Vec<Bytes>>,
}

/// Appends in the order they came.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) appends: Vec<Pending>,
    /// The encoded records of all that are not large, one after the other.
    pub(super) encoded: Vec<u8>,
}

/// What is asked of the keeper because of a submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Nothing,
    /// Have the next segment ready.
    Prepare,
}

/// See the [module](self).
pub(super) struct Intake {
    inner: Mutex<Inner>,
    /// Tells the writer that something came.
    arrived: Condvar,
    /// Tells those who wait for room in memory.
    pub(super) written: Notify,
    queued_bytes_max: usize,
}

struct Inner {
    batch: Batch,
    closed: bool,
    /// The writer waits, so it must be woken.
    waiting: bool,
    next_lsn: u64,
    /// Encoded bytes that were taken and are not yet durable.
    queued_bytes: usize,
    /// The segment of the append that was taken last, and where the next one would go at the latest.
    plan: SegmentHeader,
    plan_position: u64,
    /// Segments that appends begin which are not yet written.
    unbegun: usize,
    /// The file of the segment after the plan's.
    next: Option<ReadyFile>,
    /// The keeper was told to have the next segment ready.
    asked: bool,
    /// The keeper found no room for one more segment.
    full: bool,
    /// Nothing before this is needed.
    trimmed: u64,
}

impl Intake {
    /// An intake whose next record is `next_lsn`, at `position` of the segment `plan`.
    pub(super) fn new(
        queued_bytes_max: usize,
        plan: SegmentHeader,
        position: u64,
        next_lsn: u64,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner {
                batch: Batch::default(),
                closed: false,
                waiting: false,
                next_lsn,
                queued_bytes: 0,
                plan,
                plan_position: position,
                unbegun: 0,
                next: None,
                asked: false,
                full: false,
                trimmed: 0,
            }),
            arrived: Condvar::new(),
            written: Notify::new(),
            queued_bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes records. `one_segment` is asked, rarely, whether the journal is down to one segment.
    pub(super) fn submit(
        &self,
        records: &[Bytes],
        need: Need,
        one_segment: impl Fn() -> bool,
    ) -> Result<(Lsn, Wish), JournalError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(closed());
        }
        if records.is_empty() {
            return Ok((Lsn(inner.next_lsn - 1), Wish::Nothing));
        }
        if inner.queued_bytes >= self.queued_bytes_max {
            return Err(JournalError::busy(format_args!(
                "{} bytes wait for the disk, queued_bytes_max is {}",
                inner.queued_bytes, self.queued_bytes_max
            )));
        }
        let begin = match inner.place(need, one_segment) {
            Place::Here => None,
            Place::Next => inner.begin_next(),
            Place::Again => Some(inner.begin_again()),
            Place::Nowhere => {
                return Err(JournalError::busy("the next segment is not ready"));
            }
        };
        inner.push(begin, records, need);
        let last = Lsn(inner.next_lsn - 1);
        let wish = inner.wish();
        let wake = std::mem::take(&mut inner.waiting);
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
        Ok((last, wish))
    }

    /// True if the queue has room in memory.
    pub(super) fn has_memory(&self) -> bool {
        let inner = self.lock();
        inner.closed || inner.queued_bytes < self.queued_bytes_max
    }

    /// True if records of this need have room on the disk.
    pub(super) fn has_place(&self, need: Need, one_segment: impl Fn() -> bool) -> bool {
        !matches!(self.lock().place(need, one_segment), Place::Nowhere)
    }

    /// True if there is a file for the next segment.
    pub(super) fn has_next(&self) -> bool {
        self.lock().next.is_some()
    }

    /// Makes `file` the next segment's. Returns the one that was.
    pub(super) fn set_next(&self, file: ReadyFile) -> Option<ReadyFile> {
        let mut inner = self.lock();
        inner.full = false;
        inner.next.replace(file)
    }

    /// Takes the next segment's file away.
    pub(super) fn take_next(&self) -> Option<ReadyFile> {
        self.lock().next.take()
    }

    /// Notes whether there is room for one more segment.
    pub(super) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// True if the keeper found no room for one more segment when it tried last.
    pub(super) fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Notes that nothing before `to` is needed. Returns the largest mark so far, which is not beyond the
    /// next place.
    pub(super) fn trim(&self, to: u64) -> u64 {
        let mut inner = self.lock();
        let to = to.min(inner.next_lsn);
        inner.trimmed = inner.trimmed.max(to);
        inner.trimmed
    }

    /// The largest mark trimmed to.
    pub(super) fn trimmed(&self) -> u64 {
        self.lock().trimmed
    }

    /// Exchanges the empty `batch` for all that came. Waits for something; returns with nothing only when the
    /// intake is closed.
    pub(super) fn take(&self, batch: &mut Batch) {
        let mut inner = self.lock();
        while inner.batch.appends.is_empty() && !inner.closed {
            inner.waiting = true;
            inner = self
                .arrived
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inner.waiting = false;
        std::mem::swap(&mut inner.batch, batch);
    }

    /// Notes that appends of `encoded_bytes` are durable, planned with `planned_bytes` and written with
    /// `written_bytes` into the segment that starts with `segment`.
    pub(super) fn done(
        &self,
        segment: u64,
        encoded_bytes: usize,
        planned_bytes: u64,
        written_bytes: u64,
    ) {
        let mut inner = self.lock();
        inner.queued_bytes -= encoded_bytes;
        if inner.unbegun == 0 && inner.plan.first_lsn == segment {
            inner.plan_position -= planned_bytes - written_bytes;
        }
        drop(inner);
        self.written.notify_waiters();
    }

    /// Notes that a segment which an append begins was begun.
    pub(super) fn begun(&self) {
        self.lock().unbegun -= 1;
    }

    /// Lets nothing more in; what is queued stays for the writer.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
        self.written.notify_waiters();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

pub(super) fn closed() -> JournalError {
    JournalError::unavailable("the journal is closed")
}

/// Where an append would go.
enum Place {
    Here,
    Next,
    Again,
    Nowhere,
}

impl Inner {
    fn place(&self, need: Need, one_segment: impl Fn() -> bool) -> Place {
        if self.plan_position + need.group_bytes <= self.plan.bytes {
            return Place::Here;
        }
        if self
            .next
            .as_ref()
            .is_some_and(|next| need.segment_bytes <= next.bytes)
        {
            return Place::Next;
        }
        // On a full disk the only segment starts over when nothing in it is needed. Where there is room for
        // another file that is the better way: it syncs the folder once and not twice.
        let again = self.full
            && self.trimmed >= self.next_lsn
            && self.plan_position > SEGMENT_HEADER_BYTES as u64
            && need.segment_bytes <= self.plan.bytes
            && self.unbegun == 0
            && one_segment();
        if again { Place::Again } else { Place::Nowhere }
    }

    fn begin_next(&mut self) -> Option<Begin> {
        let file = self.next.take()?;
        let header = self.begin(file.bytes);
        Some(Begin::Next(file, header))
    }

    fn begin_again(&mut self) -> Begin {
        let header = self.begin(self.plan.bytes);
        Begin::Again(header)
    }

    /// Goes on in a segment of `bytes` that starts with the next record.
    fn begin(&mut self, bytes: u64) -> SegmentHeader {
        self.plan = SegmentHeader {
            journal_id: self.plan.journal_id,
            first_lsn: self.next_lsn,
            salt: random(),
            bytes,
        };
        self.plan_position = SEGMENT_HEADER_BYTES as u64;
        self.unbegun += 1;
        self.asked = false;
        self.plan
    }

    fn push(&mut self, begin: Option<Begin>, records: &[Bytes], need: Need) {
        let first_lsn = self.next_lsn;
        let large = if need.encoded_bytes <= ENCODED_AT_ONCE_BYTES {
            let stamp = self.plan.stamp();
            for (lsn, record) in (first_lsn..).zip(records) {
                stamp.encode_record(lsn, record, &mut self.batch.encoded);
            }
            None
        } else {
            Some(records.to_vec())
        };
        self.next_lsn += records.len() as u64;
        self.plan_position += need.group_bytes;
        self.queued_bytes += need.encoded_bytes;
        self.batch.appends.push(Pending {
            begin,
            first_lsn,
            // An append has fewer bytes than this has numbers.
            records: u32::try_from(records.len()).unwrap_or(u32::MAX),
            need,
            large,
        });
    }

    /// The next segment is made ready when this one is half full: late enough for a trim to hand its file on
    /// meanwhile, early enough to be done in time.
    fn wish(&mut self) -> Wish {
        if self.asked || self.next.is_some() || self.plan_position <= self.plan.bytes / 2 {
            return Wish::Nothing;
        }
        self.asked = true;
        Wish::Prepare
    }
}
