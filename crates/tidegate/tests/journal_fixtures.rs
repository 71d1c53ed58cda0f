//! Files of the first format, whole and broken in each way: read as they should be, or refused with the place.
//!
//! `tests/fixtures/journal/make.py` wrote them from the format's description alone, but for the two whose names
//! start with `v1`, which the journal wrote when the format was new.

#![cfg(feature = "journal")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use bytes::Bytes;
use tidegate::journal::faulty::FaultyDisk;
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::{Journal, JournalError, Lsn};

const SEGMENT: &str = "journal/00000000000000000001.journal";

fn open(disk: &FaultyDisk) -> Result<FileJournal, JournalError> {
    let mut config = JournalConfig::new("journal");
    config.segment_bytes = 4096;
    FileJournal::open_on(config, disk.mount())
}

fn fixture(name: &str) -> FaultyDisk {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal");
    let disk = FaultyDisk::new();
    disk.replace(
        Path::new(SEGMENT),
        std::fs::read(folder.join(name)).unwrap(),
    );
    disk
}

fn record(number: u64) -> Bytes {
    Bytes::from(format!("record {number} of the first format"))
}

/// The file holds the first `count` records and takes the next; both are there after another opening.
async fn check_opens(name: &str, count: u64) {
    let disk = fixture(name);
    let next = Bytes::from_static(b"next");
    for appended in [false, true] {
        let journal = open(&disk).unwrap();
        let mut found = journal.replay(Lsn(0), 10).await.unwrap();
        if appended {
            assert_eq!(
                found.pop().map(|last| last.record),
                Some(next.clone()),
                "{name}"
            );
        } else {
            let last = journal.append(vec![next.clone()]).await.unwrap();
            assert_eq!(last, Lsn(count + 1), "{name}");
        }
        assert_eq!(found.len() as u64, count, "{name}");
        for (number, replayed) in (1..).zip(found) {
            assert_eq!(replayed.lsn, Lsn(number), "{name}");
            assert_eq!(replayed.record, record(number), "{name}");
        }
        journal.close().await;
    }
}

/// The file is refused with these words, which name the place and show no record; and it is left as it is.
fn check_refused(name: &str, words: &str) {
    let disk = fixture(name);
    let before = disk.read(Path::new(SEGMENT));
    match open(&disk) {
        Err(JournalError::Corrupt { message }) => {
            assert!(message.contains(words), "{name}: {message}");
            assert!(message.contains(SEGMENT), "{name}: {message}");
            assert!(!message.contains("first format"), "{name}: {message}");
        }
        other => panic!("{name}: {other:?}"),
    }
    assert_eq!(disk.read(Path::new(SEGMENT)), before, "{name}");
}

#[tokio::test]
async fn whole_files_open() {
    check_opens("v1.journal", 5).await;
    check_opens("good.journal", 5).await;
    check_opens("closed.journal", 5).await;
}

#[tokio::test]
async fn a_torn_tail_is_cut() {
    // The first record of the torn group is whole.
    check_opens("torn-tail.journal", 3).await;
    check_opens("torn-head.journal", 2).await;
}

/// An earlier use of the file left whole groups behind the records of this use, at the places where groups are
/// looked for and one with the very lsn that comes next.
#[tokio::test]
async fn old_records_of_a_recycled_file_are_none() {
    let old = fixture("recycled.journal").read(Path::new(SEGMENT));
    assert!(old[1536..].starts_with(b"tgrp"));
    check_opens("recycled.journal", 2).await;
}

#[test]
fn damage_is_refused() {
    for (name, words) in [
        (
            "v1-corrupt.journal",
            "at offset 560: checksum of a record does not match",
        ),
        (
            "bad-checksum.journal",
            "at offset 560: checksum of a record does not match",
        ),
        (
            "bad-checksum-closed.journal",
            "at offset 1116: checksum of a record does not match",
        ),
        ("wrong-magic.journal", "at offset 0: not a journal segment"),
        (
            "future-version.journal",
            "at offset 0: format version is 2, this build reads 1",
        ),
        (
            "truncated-header.journal",
            "at offset 0: the file is shorter than a segment header",
        ),
        (
            "truncated-file.journal",
            "at offset 600: the file ends, the segment is 4096 bytes",
        ),
        (
            "zero-length.journal",
            "at offset 0: the file is shorter than a segment header",
        ),
    ] {
        check_refused(name, words);
    }
}

/// A change of the format must change its version: what is written today is what the fixture holds, but for
/// the random numbers.
#[tokio::test]
async fn the_format_written_is_version_1() {
    let disk = FaultyDisk::new();
    write_fixture(&disk).await;
    let written = disk.read(Path::new(SEGMENT));
    let kept = fixture("v1.journal").read(Path::new(SEGMENT));
    assert_eq!(written.len(), kept.len());
    // Checksums, journal id and salt differ; group and record headers stand where these ranges say.
    let is_random = |at: usize| {
        let in_group = at % 512;
        match at {
            0..512 => (12..24).contains(&at) || (32..40).contains(&at),
            _ => {
                let sector = at - in_group;
                let mut crcs = Vec::from([(4..8), (8..16)]);
                let records =
                    u32::from_le_bytes(kept[sector + 32..sector + 36].try_into().unwrap());
                let mut start = 48;
                for _ in 0..records {
                    crcs.push(start + 4..start + 8);
                    start += 16 + record(1).len();
                }
                crcs.iter().any(|range| range.contains(&in_group))
            }
        }
    };
    for at in 0..kept.len() {
        assert!(
            is_random(at) || written[at] == kept[at],
            "byte {at} differs"
        );
    }
}

/// Writes what the fixtures were made of.
async fn write_fixture(disk: &FaultyDisk) {
    let journal = open(disk).unwrap();
    journal.append((1..=2).map(record).collect()).await.unwrap();
    journal.append((3..=5).map(record).collect()).await.unwrap();
    journal.close().await;
}
