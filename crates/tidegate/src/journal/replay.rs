//! Reads records back, a page at a time.

use std::sync::PoisonError;

use tidegate_core::port::{JournalError, Lsn, Replayed};

use super::error::corrupt;
use super::reader::{SegmentReader, Step};
use super::shared::Shared;

/// A page ends after this many bytes, though it holds one record at least.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Where the last page ended, so that the next does not start from the head of its segment.
pub(super) struct Cursor(SegmentReader);

/// Up to `limit` durable records from `from` on.
pub(super) fn page(
    shared: &Shared,
    cursor: &mut Option<Cursor>,
    from: Lsn,
    limit: usize,
) -> Result<Vec<Replayed>, JournalError> {
    let reading = shared.removal.read();
    let _guard = reading.unwrap_or_else(PoisonError::into_inner);
    let tail = shared.durable.tail();
    let Some(oldest) = shared.segments().front().copied() else {
        return Ok(Vec::new());
    };
    let from = from.0.max(oldest.first_lsn);
    let mut records = Vec::new();
    if limit == 0 || from >= tail {
        return Ok(records);
    }
    let mut reader = match cursor.take() {
        Some(Cursor(mut reader)) if reader.next_lsn == from && is_listed(shared, &reader) => {
            reader.forget_window();
            reader
        }
        _ => segment_of(shared, from)?,
    };
    let mut page_bytes = 0;
    while reader.next_lsn < tail && records.len() < limit && page_bytes < PAGE_BYTES_MAX {
        let keep = reader.next_lsn >= from;
        let (offset, why) = match reader.step(keep)? {
            Step::Record { lsn, payload } => {
                if let Some(record) = payload {
                    page_bytes += record.len();
                    records.push(Replayed {
                        lsn: Lsn(lsn),
                        record,
                    });
                }
                continue;
            }
            Step::Stop { offset, why } => (offset, why),
        };
        // All of this was checked when the journal was opened: there is a next record, and it is where an
        // earlier recovery went on or at the head of the next segment.
        let group = reader.find_group(offset)?;
        if let Some(group) = group.filter(|group| group.first_lsn == reader.next_lsn) {
            reader.enter(group);
            continue;
        }
        let next = segment_of(shared, reader.next_lsn)?;
        if next.header.first_lsn != reader.next_lsn || next.path == reader.path {
            return Err(corrupt(&reader.path, offset, why));
        }
        reader = next;
    }
    *cursor = Some(Cursor(reader));
    Ok(records)
}

fn is_listed(shared: &Shared, reader: &SegmentReader) -> bool {
    let first_lsn = reader.header.first_lsn;
    let segments = shared.segments();
    segments
        .iter()
        .any(|segment| segment.first_lsn == first_lsn)
}

/// The start of the segment that holds `lsn`.
fn segment_of(shared: &Shared, lsn: u64) -> Result<SegmentReader, JournalError> {
    let segment = {
        let segments = shared.segments();
        let after = segments.partition_point(|segment| segment.first_lsn <= lsn);
        segments.get(after.saturating_sub(1)).copied()
    };
    let Some(segment) = segment else {
        return Err(JournalError::unavailable("the journal has no segments"));
    };
    SegmentReader::open(&*shared.disk, &segment.path(&shared.config.path))
}
