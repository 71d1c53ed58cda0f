//! What the file journal adds to the port: group commit, bounds, poison, segments, the lock.

#![cfg(feature = "journal")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::{poll_fn, ready};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate::journal::faulty::{FaultyDisk, Survival};
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::{Journal, JournalError, Lsn};

const SEGMENT_BYTES: u64 = 4096;

fn config() -> JournalConfig {
    let mut config = JournalConfig::new("journal");
    config.segment_bytes = SEGMENT_BYTES;
    config.space_retry = Duration::ZERO;
    config
}

fn open(disk: &FaultyDisk) -> FileJournal {
    FileJournal::open_on(config(), disk.mount()).unwrap()
}

fn record(bytes: usize) -> Vec<Bytes> {
    vec![Bytes::from(vec![7; bytes])]
}

/// An append under way.
type Begun = Pin<Box<dyn Future<Output = Result<Lsn, JournalError>>>>;

/// Begins an append: it has reached the writer, or waits for room, when this returns.
async fn begin(journal: &Arc<FileJournal>, bytes: usize) -> Begun {
    let journal = Arc::clone(journal);
    let mut begun: Begun = Box::pin(async move { journal.append(record(bytes)).await });
    match poll_fn(|context| Poll::Ready(begun.as_mut().poll(context))).await {
        Poll::Ready(answer) => Box::pin(ready(answer)),
        Poll::Pending => begun,
    }
}

async fn count(journal: &FileJournal) -> usize {
    let tail = journal.tail();
    let mut count = 0;
    let mut next = Lsn(0);
    while let Some(last) = {
        let page = journal.replay(next, 100).await.unwrap();
        count += page.len();
        page.last().map(|last| last.lsn)
    } {
        next = last.next();
        assert!(next <= tail);
    }
    count
}

fn segments(disk: &FaultyDisk) -> Vec<PathBuf> {
    let mut names = disk.names();
    names.retain(|path| path.extension().is_some_and(|ending| ending == "journal"));
    names
}

#[tokio::test]
async fn appends_that_queue_during_a_sync_share_the_next() {
    let disk = FaultyDisk::new();
    let journal =
        Arc::new(FileJournal::open_on(JournalConfig::new("journal"), disk.mount()).unwrap());
    let before = disk.counts();
    disk.hold_syncs();
    let first = begin(&journal, 100).await;
    disk.wait_for_held_sync();
    let mut others = Vec::new();
    for _ in 0..63 {
        others.push(begin(&journal, 100).await);
    }
    disk.release_syncs();
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    let after = disk.counts();
    assert_eq!(
        after.syncs - before.syncs,
        2,
        "one sync each for 1 and for 63"
    );
    assert_eq!(after.writes - before.writes, 2);
    assert_eq!(journal.tail(), Lsn(65));
    journal.close().await;
}

#[tokio::test]
async fn a_group_has_a_bound() {
    let disk = FaultyDisk::new();
    let mut config = config();
    config.segment_bytes = 1 << 20;
    config.group_bytes_max = 1_000;
    let journal = Arc::new(FileJournal::open_on(config, disk.mount()).unwrap());
    let before = disk.counts().syncs;
    disk.hold_syncs();
    let mut appends = Vec::new();
    for _ in 0..10 {
        appends.push(begin(&journal, 400).await);
    }
    disk.release_syncs();
    for append in appends {
        append.await.unwrap();
    }
    // Two of them fit, three do not.
    assert!(disk.counts().syncs - before >= 5);
    // One that is larger than the bound goes alone.
    assert_eq!(journal.append(record(5_000)).await.unwrap(), Lsn(11));
    journal.close().await;
}

#[tokio::test]
async fn more_than_may_queue_waits_for_room() {
    let disk = FaultyDisk::new();
    let mut config = config();
    config.segment_bytes = 1 << 20;
    config.queued_bytes_max = 1_000;
    let journal = Arc::new(FileJournal::open_on(config, disk.mount()).unwrap());
    let mut appends = Vec::new();
    for _ in 0..20 {
        appends.push(begin(&journal, 300).await);
    }
    // One that needs more than all the room is let in as soon as there is any.
    appends.push(begin(&journal, 50_000).await);
    // Those that wait come in any order: one that comes just when there is room does not wait behind them.
    let places = join_all(appends).await.into_iter();
    let mut places: Vec<Lsn> = places.map(Result::unwrap).collect();
    places.sort_unstable();
    assert_eq!(places, (1..=21).map(Lsn).collect::<Vec<_>>());

    // What waits for room when the journal closes is refused; what is queued is finished.
    disk.hold_syncs();
    let under_way = begin(&journal, 1_000).await;
    disk.wait_for_held_sync();
    let waiting = begin(&journal, 1_000).await;
    let mut closing = journal.close();
    let closed = poll_fn(|context| Poll::Ready(closing.as_mut().poll(context))).await;
    assert!(closed.is_pending());
    assert!(matches!(
        waiting.await,
        Err(JournalError::Unavailable { .. })
    ));
    disk.release_syncs();
    assert_eq!(under_way.await.unwrap(), Lsn(22));
    closing.await;
}

#[tokio::test]
async fn a_failed_sync_poisons_until_the_next_opening() {
    let disk = FaultyDisk::new();
    let journal = Arc::new(open(&disk));
    journal.append(record(10)).await.unwrap();
    disk.hold_syncs();
    let first = begin(&journal, 10).await;
    disk.wait_for_held_sync();
    let waiting = begin(&journal, 10).await;
    disk.fail_sync_after(0);
    disk.release_syncs();
    for refused in [first.await, waiting.await] {
        match refused {
            Err(JournalError::Poisoned { message }) => {
                assert!(message.contains(".journal at offset"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    let syncs = disk.counts().syncs;
    // The disk works again, the journal does not: a sync is never tried twice.
    disk.lift_faults();
    let refused = journal.append(record(10)).await;
    assert!(matches!(refused, Err(JournalError::Poisoned { .. })));
    assert_eq!(disk.counts().syncs, syncs);
    assert_eq!(journal.tail(), Lsn(2));
    assert_eq!(count(&journal).await, 1);
    journal.close().await;
    assert_eq!(disk.counts().syncs, syncs);
    drop(journal);

    // The failed record is shown by the page cache alone. Opening writes it again, so that it is not lost
    // behind records that come after it.
    let journal = open(&disk);
    assert_eq!(count(&journal).await, 2);
    journal.append(record(10)).await.unwrap();
    drop(journal);
    disk.crash(Survival::Synced);
    assert_eq!(count(&open(&disk)).await, 3);
}

/// The name of a segment can be in the cache alone when a journal is opened: it is synced before it is
/// relied on.
#[tokio::test]
async fn a_failed_sync_of_the_folder_poisons() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    journal.append(record(3_000)).await.unwrap();
    disk.fail_folder_syncs();
    let refused = journal.append(record(3_000)).await;
    assert!(matches!(refused, Err(JournalError::Poisoned { .. })));
    drop(journal);
    disk.lift_faults();
    let journal = open(&disk);
    assert_eq!(journal.append(record(3_000)).await.unwrap(), Lsn(2));
    drop(journal);
    disk.crash(Survival::Synced);
    assert_eq!(count(&open(&disk)).await, 2);
}

#[tokio::test]
async fn a_failed_write_poisons() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    journal.append(record(10)).await.unwrap();
    disk.tear_write_after(0, 60);
    for _ in 0..2 {
        let refused = journal.append(record(10)).await;
        assert!(matches!(refused, Err(JournalError::Poisoned { .. })));
    }
    drop(journal);
    disk.lift_faults();
    assert_eq!(count(&open(&disk)).await, 1);
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_recovers() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    disk.set_space_bytes(Some(SEGMENT_BYTES + 1_000));
    journal.append(record(1_000)).await.unwrap();
    for _ in 0..2 {
        match journal.append(record(3_000)).await {
            Err(JournalError::Full { message }) => {
                assert!(message.contains("prepare journal/"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Nothing is left behind of the tries, and what fits is taken.
    assert_eq!(disk.names().len(), 1);
    assert_eq!(journal.size_bytes(), SEGMENT_BYTES);
    assert_eq!(journal.append(record(500)).await.unwrap(), Lsn(2));
    disk.set_space_bytes(None);
    assert_eq!(journal.append(record(3_000)).await.unwrap(), Lsn(3));
    assert_eq!(count(&journal).await, 3);
}

#[tokio::test]
async fn after_a_full_disk_a_pause_precedes_the_next_try() {
    let disk = FaultyDisk::new();
    let mut config = config();
    config.space_retry = Duration::from_secs(3_600);
    let journal = FileJournal::open_on(config, disk.mount()).unwrap();
    disk.set_space_bytes(Some(SEGMENT_BYTES));
    journal.append(record(3_000)).await.unwrap();
    assert!(journal.append(record(3_000)).await.is_err());
    let writes = disk.counts().writes;
    assert!(journal.append(record(3_000)).await.is_err());
    assert_eq!(disk.counts().writes, writes);
}

#[tokio::test]
async fn bytes_max_is_kept_and_a_trim_makes_room() {
    let disk = FaultyDisk::new();
    let mut config = config();
    config.bytes_max = 3 * SEGMENT_BYTES;
    let journal = FileJournal::open_on(config, disk.mount()).unwrap();
    for number in 1..=3 {
        assert_eq!(journal.append(record(3_000)).await.unwrap(), Lsn(number));
    }
    for _ in 0..2 {
        match journal.append(record(3_000)).await {
            Err(JournalError::Full { message }) => {
                assert!(message.contains("bytes_max"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert!(journal.size_bytes() <= 3 * SEGMENT_BYTES);
    }
    for number in 4..=20 {
        journal.trim(Lsn(number - 1)).await.unwrap();
        assert_eq!(journal.append(record(3_000)).await.unwrap(), Lsn(number));
        assert!(journal.size_bytes() <= 3 * SEGMENT_BYTES);
    }
    // One that no trim could make room for.
    journal.trim(Lsn(21)).await.unwrap();
    match journal.append(record(20_000)).await {
        Err(JournalError::TooLarge { message }) => {
            assert!(message.contains("bytes_max"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(journal.append(record(3_000)).await.unwrap(), Lsn(21));
    journal.close().await;
    let on_disk: usize = disk.names().iter().map(|path| disk.read(path).len()).sum();
    assert!(on_disk as u64 <= 3 * SEGMENT_BYTES);
    assert_eq!(journal.size_bytes(), on_disk as u64);
}

#[tokio::test]
async fn a_large_record_gets_a_segment_of_its_own() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    // The first segment is empty and has the same name as its successor.
    for (number, bytes) in [
        (1, 100_000),
        (2, 10),
        (3, 200_000),
        (4, 3_000),
        (5, 300_000),
    ] {
        assert_eq!(journal.append(record(bytes)).await.unwrap(), Lsn(number));
    }
    assert_eq!(count(&journal).await, 5);
    journal.close().await;
    let journal = open(&disk);
    let found = journal.replay(Lsn(3), 10).await.unwrap();
    let sizes: Vec<usize> = found.iter().map(|replayed| replayed.record.len()).collect();
    assert_eq!(sizes, [200_000, 3_000, 300_000]);
    journal.trim(Lsn(6)).await.unwrap();
    journal.append(record(3_000)).await.unwrap();
    journal.trim(Lsn(6)).await.unwrap();
    journal.close().await;
    assert_eq!(segments(&disk).len(), 1);
    // The last, the next, and four spare ones.
    assert!(journal.size_bytes() <= 6 * SEGMENT_BYTES);
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_by_name() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    // Records may share their bytes, so this costs no two gigabytes.
    let large = Bytes::from(vec![0; 1 << 20]);
    match journal.append(vec![large; 2_048]).await {
        Err(JournalError::TooLarge { message }) => {
            assert!(message.contains("over the limit"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(journal.append(record(1)).await.unwrap(), Lsn(1));
}

#[tokio::test]
async fn trimmed_segments_are_used_again_and_their_bytes_are_no_records() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    for number in 1..=60 {
        assert_eq!(journal.append(record(700)).await.unwrap(), Lsn(number));
        journal.trim(Lsn(number)).await.unwrap();
    }
    journal.close().await;
    assert!(segments(&disk).len() <= 2);
    // An old segment's bytes stay behind the records of its successor.
    let last = segments(&disk).pop().unwrap();
    let file = disk.read(&last);
    let groups = file
        .chunks(512)
        .filter(|sector| sector.starts_with(b"tgrp"));
    let journal = open(&disk);
    let found = count(&journal).await;
    assert!(groups.count() > 0 && found >= 1);
    assert_eq!(journal.tail(), Lsn(61));
    let first = journal.replay(Lsn(0), 1).await.unwrap()[0].lsn;
    assert_eq!(
        first.0 + found as u64,
        61,
        "no gap, and nothing beyond the tail"
    );
}

/// While the writer syncs the header of a new segment, a trim makes the next file ready. Under one name the
/// writer would have given that file the name of its own segment, and lost its records.
#[tokio::test]
async fn a_file_made_ready_meanwhile_does_not_take_a_segments_place() {
    let disk = FaultyDisk::new();
    let journal = Arc::new(open(&disk));
    for number in 1..=3 {
        assert_eq!(journal.append(record(1_500)).await.unwrap(), Lsn(number));
    }
    let wait_for_ready = || {
        let is_ready = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "ready");
        while !disk.names().iter().any(is_ready) {
            std::thread::yield_now();
        }
    };
    // The second segment is more than half full now: the keeper makes the third ready.
    journal.append(record(1_000)).await.unwrap();
    wait_for_ready();
    disk.hold_syncs();
    let under_way = begin(&journal, 1_500).await;
    disk.wait_for_held_sync();
    journal.trim(Lsn(3)).await.unwrap();
    wait_for_ready();
    disk.release_syncs();
    assert_eq!(under_way.await.unwrap(), Lsn(5));
    assert_eq!(journal.append(record(2_000)).await.unwrap(), Lsn(6));
    drop(journal);
    disk.crash(Survival::Synced);
    let journal = open(&disk);
    assert_eq!(journal.tail(), Lsn(7));
    assert_eq!(journal.replay(Lsn(3), 10).await.unwrap().len(), 4);
}

#[tokio::test]
async fn one_process_has_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/journal");
    let mut config = JournalConfig::new(&path);
    config.segment_bytes = SEGMENT_BYTES;
    let journal = FileJournal::open(config.clone()).unwrap();
    match FileJournal::open(config.clone()) {
        Err(JournalError::Unavailable { message }) => {
            assert!(
                message.contains("in use") && message.contains("a/b/journal"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    journal.append(record(10)).await.unwrap();
    journal.close().await;
    let journal = FileJournal::open(config.clone()).unwrap();
    drop(journal);
    let journal = FileJournal::open(config).unwrap();
    assert_eq!(count(&journal).await, 1);

    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in path.read_dir().unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    type Spoil = fn(&mut JournalConfig);
    let spoils: [(&str, Spoil); 6] = [
        ("path", |config| config.path = PathBuf::new()),
        ("segment_bytes", |config| config.segment_bytes = 5_000),
        ("segment_bytes", |config| config.segment_bytes = 512),
        ("bytes_max", |config| config.bytes_max = SEGMENT_BYTES),
        ("group_bytes_max", |config| config.group_bytes_max = 0),
        ("queued_bytes_max", |config| config.queued_bytes_max = 0),
    ];
    for (name, spoil) in spoils {
        let mut config = config();
        spoil(&mut config);
        match FileJournal::open_on(config, FaultyDisk::new().mount()) {
            Err(JournalError::Unavailable { message }) => {
                assert!(message.contains(name), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_segment_size_may_change_between_openings() {
    let disk = FaultyDisk::new();
    let mut number = 0;
    for segment_bytes in [4096, 16_384, 8_192] {
        let mut config = config();
        config.segment_bytes = segment_bytes;
        let journal = FileJournal::open_on(config, disk.mount()).unwrap();
        for _ in 0..12 {
            number += 1;
            assert_eq!(journal.append(record(1_500)).await.unwrap(), Lsn(number));
        }
        journal.close().await;
    }
    assert_eq!(count(&open(&disk)).await, 36);
}

#[tokio::test]
async fn a_drop_finishes_what_is_queued() {
    let disk = FaultyDisk::new();
    let journal = Arc::new(open(&disk));
    disk.hold_syncs();
    let append = begin(&journal, 10).await;
    disk.wait_for_held_sync();
    // The caller goes away; the record does not.
    drop(append);
    disk.release_syncs();
    drop(journal);
    disk.crash(Survival::Synced);
    assert_eq!(count(&open(&disk)).await, 1);
}
