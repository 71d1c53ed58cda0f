//! Room: what is taken has it, what has none is told why, and a journal that was full goes on by itself.

#![cfg(feature = "journal")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tidegate::journal::faulty::{FaultyDisk, Survival};
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::{Journal, JournalError, Lsn};

const SEGMENT_BYTES: u64 = 4096;

fn config(path: impl Into<PathBuf>) -> JournalConfig {
    let mut config = JournalConfig::new(path);
    config.segment_bytes = SEGMENT_BYTES;
    config.space_retry = Duration::ZERO;
    config
}

fn open(disk: &FaultyDisk) -> FileJournal {
    FileJournal::open_on(config("journal"), disk.mount()).unwrap()
}

fn record(bytes: usize) -> Vec<Bytes> {
    vec![Bytes::from(vec![7; bytes])]
}

fn check_full<T: std::fmt::Debug>(answer: Result<T, JournalError>, words: &str) {
    match answer {
        Err(JournalError::Full { message }) => assert!(message.contains(words), "{message}"),
        other => panic!("{other:?}"),
    }
}

async fn lsns(journal: &FileJournal) -> Vec<u64> {
    let page = journal.replay(Lsn(0), 1_000).await.unwrap();
    page.iter().map(|replayed| replayed.lsn.0).collect()
}

#[tokio::test]
async fn a_submission_has_its_place_at_once_and_is_busy_rather_than_late() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    disk.hold_syncs();
    assert_eq!(journal.submit(&record(100)).unwrap(), Lsn(1));
    let two = [record(100), record(200)].concat();
    assert_eq!(journal.submit(&two).unwrap(), Lsn(3));
    assert_eq!(journal.submit(&[]).unwrap(), Lsn(3));
    // Nothing is durable: nothing is told so, and the tail is a lower bound.
    assert_eq!(journal.tail(), Lsn(1));
    // There is no second segment yet.
    let large = record(3_000);
    assert!(matches!(
        journal.submit(&large),
        Err(JournalError::Busy { .. })
    ));
    disk.release_syncs();
    journal.room(&large).await.unwrap();
    assert_eq!(journal.submit(&large).unwrap(), Lsn(4));
    journal.wait(Lsn(4)).await.unwrap();
    // Waiting for what is durable already, and twice, is no wait.
    for lsn in [2, 4, 4] {
        journal.wait(Lsn(lsn)).await.unwrap();
    }
    assert_eq!(journal.tail(), Lsn(5));
    drop(journal);
    disk.crash(Survival::Synced);
    assert_eq!(lsns(&open(&disk)).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_wait_ends_with_the_journal() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    disk.fail_sync_after(0);
    let last = journal.submit(&record(100)).unwrap();
    let refused = journal.wait(last).await;
    assert!(
        matches!(refused, Err(JournalError::Poisoned { .. })),
        "{refused:?}"
    );
    for refused in [
        journal.submit(&record(1)).map(|_| ()),
        journal.room(&record(1)).await,
        journal.wait(last).await,
    ] {
        assert!(
            matches!(refused, Err(JournalError::Poisoned { .. })),
            "{refused:?}"
        );
    }
    let journal = open(&FaultyDisk::new());
    journal.close().await;
    // A place nobody was given.
    let refused = journal.wait(Lsn(9)).await;
    assert!(matches!(refused, Err(JournalError::Unavailable { .. })));
}

/// The disk has room for one segment, and that is full of records nobody needs.
#[tokio::test]
async fn on_a_full_disk_the_only_segment_starts_over() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    disk.set_space_bytes(Some(SEGMENT_BYTES));
    for round in 0..5 {
        let first = round * 3 + 1;
        for lsn in first..first + 3 {
            assert_eq!(journal.append(record(900)).await.unwrap(), Lsn(lsn));
        }
        check_full(journal.append(record(900)).await, "prepare journal/");
        // One record is still needed.
        journal.trim(Lsn(first + 2)).await.unwrap();
        check_full(journal.append(record(900)).await, "prepare journal/");
        assert_eq!(lsns(&journal).await, [first, first + 1, first + 2]);
        journal.trim(Lsn(first + 3)).await.unwrap();
    }
    assert_eq!(journal.append(record(900)).await.unwrap(), Lsn(16));
    assert_eq!(lsns(&journal).await, [16]);
    assert_eq!(journal.size_bytes(), SEGMENT_BYTES);
    drop(journal);
    disk.crash(Survival::Synced);
    let journal = open(&disk);
    assert_eq!(lsns(&journal).await, [16]);
    assert_eq!(journal.append(record(1)).await.unwrap(), Lsn(17));
}

/// The machine stops at each sync of a segment that starts over, with each kind of loss.
#[tokio::test]
async fn a_segment_that_starts_over_survives_a_crash_at_any_step() {
    let survivals = [Survival::All, Survival::Synced]
        .into_iter()
        .chain((0..40).map(Survival::Some));
    for survival in survivals {
        for fail_at in 0..3 {
            let disk = FaultyDisk::new();
            let journal = open(&disk);
            disk.set_space_bytes(Some(SEGMENT_BYTES));
            for _ in 0..3 {
                journal.append(record(900)).await.unwrap();
            }
            journal.trim(Lsn(4)).await.unwrap();
            match fail_at {
                0 => disk.fail_folder_syncs(),
                1 => disk.fail_sync_after(0),
                _ => disk.fail_sync_after(1),
            }
            let refused = journal.append(record(900)).await;
            assert!(matches!(refused, Err(JournalError::Poisoned { .. })));
            disk.crash(survival);
            drop(journal);

            let journal = open(&disk);
            let found = lsns(&journal).await;
            let expected: [&[u64]; 4] = [&[1, 2, 3], &[], &[4], &[1, 2, 3, 4]];
            assert!(
                expected.contains(&&found[..]),
                "{survival:?} {fail_at}: {found:?}"
            );
            let next = journal.append(record(1)).await.unwrap();
            assert!(next == Lsn(4) || next == Lsn(5), "{next:?}");
            drop(journal);
            disk.crash(Survival::Synced);
            assert_eq!(lsns(&open(&disk)).await.last(), Some(&next.0));
        }
    }
}

#[tokio::test]
async fn one_old_record_is_moved_and_the_journal_shrinks() {
    let disk = FaultyDisk::new();
    let mut config = config("journal");
    config.bytes_max = 8 * SEGMENT_BYTES;
    let journal = FileJournal::open_on(config, disk.mount()).unwrap();
    assert_eq!(journal.crowded_before(), None);
    // The first record is needed for ever, the others only until the next.
    let old = vec![Bytes::from_static(b"old")];
    let mut needed = journal.append(old.clone()).await.unwrap();
    let (mut moves, mut refused) = (0, 0);
    let mut last = needed;
    for _ in 0..100 {
        match journal.append(record(3_000)).await {
            Ok(lsn) => last = lsn,
            Err(error) => {
                assert!(matches!(error, JournalError::Full { .. }), "{error}");
                refused += 1;
            }
        }
        journal.trim(needed).await.unwrap();
        if let Some(before) = journal.crowded_before() {
            assert!(
                needed < before && before <= last,
                "{needed:?} {before:?} {last:?}"
            );
            needed = journal.append(old.clone()).await.unwrap();
            journal.trim(needed).await.unwrap();
            moves += 1;
        }
        assert!(journal.size_bytes() <= 8 * SEGMENT_BYTES);
    }
    assert_eq!(refused, 0);
    assert!((10..40).contains(&moves), "{moves}");
    let found = journal.replay(needed, 1).await.unwrap();
    assert_eq!(found[0].record, old[0]);
    journal.close().await;
}

#[tokio::test]
async fn a_journal_with_room_does_not_ask_for_moves() {
    let disk = FaultyDisk::new();
    let mut config = config("journal");
    config.bytes_max = 100 * SEGMENT_BYTES;
    let journal = FileJournal::open_on(config, disk.mount()).unwrap();
    for _ in 0..40 {
        journal.append(record(3_000)).await.unwrap();
        assert_eq!(journal.crowded_before(), None);
    }
    for _ in 40..60 {
        journal.append(record(3_000)).await.unwrap();
    }
    assert_eq!(journal.crowded_before(), Some(Lsn(2)));
    // What keeps it is not a record but the keeper's pace.
    journal.trim(Lsn(61)).await.unwrap();
    assert_eq!(journal.crowded_before(), None);
}

/// What a start reads is what is kept, however much has gone through.
#[tokio::test]
async fn a_start_reads_what_is_unflushed_and_not_the_history() {
    async fn read_at_start(history: u64, unflushed: u64) -> (u64, usize) {
        let disk = FaultyDisk::new();
        let journal = open(&disk);
        for lsn in 1..=history {
            journal.append(record(1_000)).await.unwrap();
            journal.trim(Lsn(lsn + 1)).await.unwrap();
        }
        for _ in 0..unflushed {
            journal.append(record(1_000)).await.unwrap();
        }
        drop(journal);
        disk.crash(Survival::Synced);
        let before = disk.counts().read_bytes;
        let journal = open(&disk);
        assert_eq!(journal.tail(), Lsn(history + unflushed + 1));
        let found = lsns(&journal).await.len();
        (disk.counts().read_bytes - before, found)
    }
    let (short, found_short) = read_at_start(30, 3).await;
    let (long, found_long) = read_at_start(3_000, 3).await;
    // The last segment is read as a whole, and one more may hold the rest.
    assert!(found_short < 12 && found_long < 12);
    assert!(short <= 8 * SEGMENT_BYTES, "{short}");
    assert!(long <= 8 * SEGMENT_BYTES, "{long} bytes after 3000 records");
    let (unflushed, found) = read_at_start(30, 300).await;
    assert!(found >= 300);
    assert!(
        unflushed > 300 * 1_000,
        "the count of bytes read counts nothing"
    );
}

/// A file system of some MiB, which is gone with the guard.
struct SmallFileSystem {
    folder: tempfile::TempDir,
}

impl SmallFileSystem {
    /// None, with the reason, where this process may not mount.
    fn mount(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes}"),
                "tidegate-test",
            ])
            .arg(folder.path())
            .output()
            .map_err(|error| error.to_string())?;
        if mounted.status.success() {
            Ok(Self { folder })
        } else {
            Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned())
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.folder.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.folder.path().display()
        );
    }
}

/// Where the small file system is: mounted, or, where that is not allowed, the disk in memory.
enum SmallDisk {
    Mounted(SmallFileSystem),
    InMemory(FaultyDisk),
}

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        match SmallFileSystem::mount(bytes) {
            Ok(mounted) => Self::Mounted(mounted),
            Err(reason) => {
                // Past the capture of the test harness: a test that does less must say so.
                let said = format!("no small file system, the disk in memory instead: {reason}\n");
                std::io::stderr().write_all(said.as_bytes()).unwrap();
                let disk = FaultyDisk::new();
                disk.set_space_bytes(Some(bytes));
                Self::InMemory(disk)
            }
        }
    }

    fn open(&self, set: impl Fn(&mut JournalConfig)) -> Result<FileJournal, JournalError> {
        match self {
            Self::Mounted(mounted) => {
                let mut config = config(mounted.path().join("journal"));
                set(&mut config);
                FileJournal::open(config)
            }
            Self::InMemory(disk) => {
                let mut config = config("journal");
                set(&mut config);
                FileJournal::open_on(config, disk.mount())
            }
        }
    }

    /// Has somebody else take the space, or give it back.
    fn fill(&self, bytes: usize) {
        match self {
            Self::Mounted(mounted) => {
                std::fs::write(mounted.path().join("other"), vec![1; bytes]).unwrap();
            }
            Self::InMemory(disk) => disk.replace(Path::new("other"), vec![1; bytes]),
        }
    }
}

#[tokio::test]
async fn a_full_file_system_loses_nothing_and_is_left_behind() {
    const MIB: u64 = 1 << 20;
    let disk = SmallDisk::new(8 * MIB);
    let set = |config: &mut JournalConfig| config.segment_bytes = MIB;
    let journal = disk.open(set).unwrap();
    disk.fill(4 * MIB as usize);
    // Until it is full, and then some more.
    let mut acknowledged = 0;
    let mut refused = 0;
    while refused < 3 {
        match journal.append(record(100_000)).await {
            Ok(lsn) => {
                acknowledged += 1;
                assert_eq!(lsn, Lsn(acknowledged));
            }
            full => {
                check_full(full, "prepare");
                refused += 1;
            }
        }
    }
    assert!(
        (20..=40).contains(&acknowledged),
        "{acknowledged} records on some 4 MiB"
    );
    // A small one goes into what is left of the last segment.
    assert_eq!(
        journal.append(record(1)).await.unwrap(),
        Lsn(acknowledged + 1)
    );
    let all: Vec<u64> = (1..=acknowledged + 1).collect();
    assert_eq!(lsns(&journal).await, all);

    // Room comes back from outside: it goes on by itself.
    disk.fill(0);
    assert_eq!(
        journal.append(record(100_000)).await.unwrap(),
        Lsn(acknowledged + 2)
    );
    // Full again, and room comes back from within.
    disk.fill(2 * MIB as usize);
    let mut last = acknowledged + 2;
    let full = loop {
        match journal.append(record(100_000)).await {
            Ok(lsn) => last = lsn.0,
            full => break full,
        }
    };
    check_full(full, "prepare");
    journal.trim(Lsn(last + 1)).await.unwrap();
    assert_eq!(
        journal.append(record(100_000)).await.unwrap(),
        Lsn(last + 1)
    );
    journal.close().await;
    drop(journal);
    let journal = disk.open(set).unwrap();
    assert_eq!(journal.tail(), Lsn(last + 2));
    assert_eq!(lsns(&journal).await.last(), Some(&(last + 1)));
    journal.close().await;
}

/// The file system is as large as one segment and nothing more ever fits.
#[tokio::test]
async fn a_file_system_of_one_segment_serves_for_ever() {
    const MIB: u64 = 1 << 20;
    let disk = SmallDisk::new(MIB + MIB / 2);
    let set = |config: &mut JournalConfig| config.segment_bytes = MIB;
    let journal = disk.open(set).unwrap();
    let mut full = 0;
    for number in 1..=60 {
        let lsn = loop {
            match journal.append(record(100_000)).await {
                Ok(lsn) => break lsn,
                refused => {
                    check_full(refused, "prepare");
                    full += 1;
                    journal.trim(Lsn(number)).await.unwrap();
                }
            }
        };
        assert_eq!(lsn, Lsn(number));
    }
    assert!((4..10).contains(&full), "{full}");
    journal.close().await;
}
