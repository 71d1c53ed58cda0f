//! Whatever is done to a journal and whenever the machine stops: every acknowledged record comes back, in
//! order, and nothing that was never written does.

#![cfg(feature = "journal")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::{poll_fn, ready};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tidegate::journal::faulty::{FaultyDisk, Survival};
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::{Journal, JournalError, Lsn, Replayed};

/// An append under way.
type Begun = Pin<Box<dyn Future<Output = Result<Lsn, JournalError>>>>;

const SEGMENT_BYTES: u64 = 4096;

fn config() -> JournalConfig {
    let mut config = JournalConfig::new("journal");
    config.segment_bytes = SEGMENT_BYTES;
    config.space_retry = Duration::ZERO;
    config
}

fn open(disk: &FaultyDisk) -> Result<FileJournal, JournalError> {
    FileJournal::open_on(config(), disk.mount())
}

async fn replay(journal: &FileJournal, from: u64) -> Vec<Replayed> {
    let mut all: Vec<Replayed> = Vec::new();
    let mut next = Lsn(from);
    loop {
        let page = journal.replay(next, 5).await.unwrap();
        let Some(last) = page.last() else { return all };
        next = last.lsn.next();
        all.extend(page);
    }
}

fn record(number: u64, bytes: usize) -> Bytes {
    let mut record = number.to_le_bytes().to_vec();
    record.resize(8 + bytes, number as u8);
    record.into()
}

#[derive(Clone, Debug)]
enum Step {
    /// Append records of these sizes and wait.
    Append(Vec<usize>),
    /// Trim to this share of the tail, of 8.
    Trim(u64),
    /// Close and open.
    Reopen,
    /// Drop without closing and open.
    Drop,
    /// Crash with nothing under way.
    Crash(Survival),
    /// Crash while these appends wait for a sync.
    CrashUnderWay(Vec<Vec<usize>>, Survival),
    /// The next sync fails under these appends; then crash, or open in the same machine.
    FailSync(Vec<Vec<usize>>, Option<Survival>),
    /// The next write fails after so many bytes; then as above.
    TearWrite(Vec<Vec<usize>>, usize, Option<Survival>),
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![8 => 0..200_usize, 2 => 200..3_000_usize, 1 => 3_000..9_000_usize];
    prop::collection::vec(size, 1..6)
}

fn survival() -> impl Strategy<Value = Survival> {
    prop_oneof![
        1 => Just(Survival::All),
        1 => Just(Survival::Synced),
        6 => any::<u64>().prop_map(Survival::Some),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let appends = || prop::collection::vec(sizes(), 1..5);
    let step = prop_oneof![
        8 => sizes().prop_map(Step::Append),
        3 => (0..9_u64).prop_map(Step::Trim),
        1 => Just(Step::Reopen),
        1 => Just(Step::Drop),
        1 => survival().prop_map(Step::Crash),
        3 => (appends(), survival()).prop_map(|(a, s)| Step::CrashUnderWay(a, s)),
        2 => (appends(), prop::option::of(survival())).prop_map(|(a, s)| Step::FailSync(a, s)),
        2 => (appends(), 0..4_000_usize, prop::option::of(survival()))
            .prop_map(|(a, bytes, s)| Step::TearWrite(a, bytes, s)),
    ];
    prop::collection::vec(step, 1..40)
}

/// The journal, and what it must hold.
struct Scene {
    disk: FaultyDisk,
    journal: Option<Arc<FileJournal>>,
    /// All records that are known to be in the journal; the first has lsn 1.
    known: Vec<Bytes>,
    /// The largest mark trimmed to.
    trimmed: u64,
}

impl Scene {
    fn new() -> Self {
        let disk = FaultyDisk::new();
        Self {
            journal: Some(Arc::new(open(&disk).unwrap())),
            disk,
            known: Vec::new(),
            trimmed: 1,
        }
    }

    fn journal(&self) -> &Arc<FileJournal> {
        self.journal.as_ref().unwrap()
    }

    fn records(&self, appends: &[Vec<usize>]) -> Vec<Vec<Bytes>> {
        let mut number = self.known.len() as u64;
        let mut record = |size: &usize| {
            number += 1;
            record(number, *size)
        };
        let records = appends
            .iter()
            .map(|sizes| sizes.iter().map(&mut record).collect());
        records.collect()
    }

    /// Begins appends in order, each after the one before it was submitted. Ends with one that waits for a
    /// segment whose sync is held: those after it might overtake it.
    async fn begin(&self, appends: &[Vec<Bytes>]) -> Vec<Begun> {
        let mut all: Vec<Begun> = Vec::new();
        for records in appends {
            let journal = Arc::clone(self.journal());
            let records = records.clone();
            let taken = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&taken);
            let mut begun: Begun = Box::pin(async move {
                let last = loop {
                    match journal.submit(&records) {
                        Err(JournalError::Busy { .. }) => journal.room(&records).await?,
                        submitted => break submitted?,
                    }
                };
                told.store(true, Ordering::Relaxed);
                journal.wait(last).await.map(|()| last)
            });
            loop {
                match poll_fn(|context| Poll::Ready(begun.as_mut().poll(context))).await {
                    Poll::Ready(answer) => break all.push(Box::pin(ready(answer))),
                    Poll::Pending if taken.load(Ordering::Relaxed) => break all.push(begun),
                    Poll::Pending if self.disk.holds_sync() => return all,
                    Poll::Pending => std::thread::yield_now(),
                }
            }
        }
        all
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Append(sizes) => {
                let records = self.records(std::slice::from_ref(sizes)).remove(0);
                self.known.extend(records.iter().cloned());
                let last = self.journal().append(records).await.unwrap();
                assert_eq!(last, Lsn(self.known.len() as u64));
                assert_eq!(self.journal().tail(), last.next());
            }
            Step::Trim(share) => {
                let mark = (self.known.len() as u64 + 1) * share / 8;
                self.journal().trim(Lsn(mark)).await.unwrap();
                self.trimmed = self.trimmed.max(mark);
            }
            Step::Reopen => {
                self.journal().close().await;
                self.reopen(&[]).await;
            }
            Step::Drop => self.reopen(&[]).await,
            Step::Crash(survival) => {
                self.disk.crash(*survival);
                self.reopen(&[]).await;
            }
            Step::CrashUnderWay(appends, survival) => {
                let appends = self.records(appends);
                self.disk.hold_syncs();
                let begun = self.begin(&appends).await;
                self.disk.wait_for_held_sync();
                self.disk.crash(*survival);
                self.finish(appends, begun).await;
            }
            Step::FailSync(appends, survival) => {
                let appends = self.records(appends);
                self.disk.fail_sync_after(0);
                let begun = self.begin(&appends).await;
                self.after_failure(appends, begun, *survival).await;
            }
            Step::TearWrite(appends, bytes, survival) => {
                let appends = self.records(appends);
                self.disk.tear_write_after(0, *bytes);
                let begun = self.begin(&appends).await;
                self.after_failure(appends, begun, *survival).await;
            }
        }
    }

    async fn after_failure(
        &mut self,
        appends: Vec<Vec<Bytes>>,
        begun: Vec<Begun>,
        survival: Option<Survival>,
    ) {
        let mut answers = Vec::new();
        for task in begun {
            answers.push(task.await);
        }
        // The failure may have hit a file that was made ready ahead, which harms no append.
        if answers.iter().any(Result::is_err) {
            let later = self.journal().append(vec![Bytes::from("later")]).await;
            assert!(
                matches!(later, Err(JournalError::Poisoned { .. })),
                "{later:?}"
            );
        }
        if let Some(survival) = survival {
            self.disk.crash(survival);
        } else {
            self.disk.lift_faults();
        }
        self.settle(appends, answers).await;
    }

    async fn finish(&mut self, appends: Vec<Vec<Bytes>>, begun: Vec<Begun>) {
        let mut answers = Vec::new();
        for task in begun {
            answers.push(task.await);
        }
        self.settle(appends, answers).await;
    }

    /// What was acknowledged must be there; of the rest a first part may be.
    async fn settle(&mut self, appends: Vec<Vec<Bytes>>, answers: Vec<Result<Lsn, JournalError>>) {
        let mut maybe = Vec::new();
        for (records, answer) in appends.into_iter().zip(answers) {
            match answer {
                Ok(last) => {
                    assert!(
                        maybe.is_empty(),
                        "an append after a failed one was acknowledged"
                    );
                    self.known.extend(records);
                    assert_eq!(last, Lsn(self.known.len() as u64));
                }
                Err(error) => {
                    assert!(matches!(error, JournalError::Poisoned { .. }), "{error}");
                    maybe.extend(records);
                }
            }
        }
        self.reopen(&maybe).await;
    }

    /// Opens the journal anew and compares.
    async fn reopen(&mut self, maybe: &[Bytes]) {
        self.journal = None;
        let journal = open(&self.disk).unwrap();
        let found = replay(&journal, 0).await;
        let may_be: Vec<&Bytes> = self.known.iter().chain(maybe).collect();
        let mut next = found.first().map(|first| first.lsn.0);
        for replayed in &found {
            assert_eq!(Some(replayed.lsn.0), next, "a gap");
            let expected = may_be.get(replayed.lsn.0 as usize - 1).copied();
            assert!(
                expected == Some(&replayed.record),
                "{:?} holds another record",
                replayed.lsn
            );
            next = Some(replayed.lsn.0 + 1);
        }
        let first = found.first().map_or(journal.tail().0, |first| first.lsn.0);
        assert!(
            first <= self.trimmed,
            "{first} is left, trimmed to {}",
            self.trimmed
        );
        let end = journal.tail().0 as usize - 1;
        assert!(
            end >= self.known.len(),
            "an acknowledged record is gone: {end} of {} are left in {:?}",
            self.known.len(),
            self.disk.names()
        );
        if let Some(last) = found.last() {
            assert_eq!(last.lsn.next(), journal.tail());
        }
        let kept = maybe[..end - self.known.len()].to_vec();
        self.known.extend(kept);
        self.journal = Some(Arc::new(journal));
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn every_acknowledged_record_survives(steps in steps()) {
        block_on(async {
            let mut scene = Scene::new();
            for step in &steps {
                scene.run(step).await;
            }
            scene.run(&Step::Reopen).await;
        });
    }
}

/// A journal with two groups in one segment, the second not yet followed by anything, and its file before
/// the second group.
async fn two_groups() -> (FaultyDisk, PathBuf, Vec<u8>) {
    let disk = FaultyDisk::new();
    let journal = open(&disk).unwrap();
    journal
        .append((1..=3).map(|number| record(number, 60)).collect())
        .await
        .unwrap();
    let path = disk.names().into_iter().next().unwrap();
    let before = disk.read(&path);
    journal
        .append((4..=20).map(|number| record(number, 60)).collect())
        .await
        .unwrap();
    // Closed only after the crash, so that no clean close is marked.
    disk.crash(Survival::All);
    drop(journal);
    (disk, path, before)
}

/// Opens, and returns how many records there are; they must be the first ones. Then appends one more, which
/// must be there after another opening.
async fn opens_with(disk: &FaultyDisk) -> u64 {
    let journal = open(disk).unwrap();
    let found = replay(&journal, 1).await;
    for (number, replayed) in (1..).zip(&found) {
        assert_eq!(replayed.lsn, Lsn(number));
        assert_eq!(replayed.record, record(number, 60));
    }
    let count = found.len() as u64;
    let next = record(count + 1, 60);
    assert_eq!(journal.append(vec![next]).await.unwrap(), Lsn(count + 1));
    drop(journal);
    disk.crash(Survival::Synced);
    let journal = open(disk).unwrap();
    let again = replay(&journal, 1).await;
    assert_eq!(again.len() as u64, count + 1);
    assert_eq!(again[..found.len()], found[..]);
    count
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut() {
    let (disk, path, before) = two_groups().await;
    let after = disk.read(&path);
    let changed: Vec<usize> = (0..after.len())
        .filter(|at| after[*at] != before[*at])
        .collect();
    let (first, last) = (changed[0], changed[changed.len() - 1]);
    assert!(last - first > 1_400, "the group spans several sectors");
    let mut counts = Vec::new();
    for cut in first..=last + 1 {
        // The first part was written.
        let mut torn = after.clone();
        torn[cut..].copy_from_slice(&before[cut..]);
        let copy = disk.copy();
        copy.replace(&path, torn);
        counts.push(opens_with(&copy).await);

        // The last part was written, and not the first.
        let mut torn = after.clone();
        torn[..cut].copy_from_slice(&before[..cut]);
        let copy = disk.copy();
        copy.replace(&path, torn);
        assert_eq!(opens_with(&copy).await, if cut == first { 20 } else { 3 });
    }
    assert!(counts.is_sorted());
    assert_eq!((counts[0], counts[counts.len() - 1]), (3, 20));
}

#[tokio::test]
async fn a_tail_with_any_sectors_missing_is_cut() {
    let (disk, path, before) = two_groups().await;
    let after = disk.read(&path);
    let sectors: Vec<usize> = (0..after.len() / 512)
        .filter(|sector| after[sector * 512..][..512] != before[sector * 512..][..512])
        .collect();
    for written in 0..1_u32 << sectors.len() {
        let mut torn = before.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            if written & 1 << bit != 0 {
                let range = sector * 512..(sector + 1) * 512;
                torn[range.clone()].copy_from_slice(&after[range]);
            }
        }
        let copy = disk.copy();
        copy.replace(&path, torn);
        let count = opens_with(&copy).await;
        assert!((3..=20).contains(&count));
    }
}

fn check_refused(disk: &FaultyDisk, what: &str) {
    match open(disk) {
        Err(JournalError::Corrupt { message }) => {
            assert!(
                message.contains(".journal at offset"),
                "{what}: {message} names no place"
            );
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Where the records of a group are: its header, and everything up to the padding.
fn group_bytes(file: &[u8], from: usize) -> std::ops::Range<usize> {
    let length = u64::from_le_bytes(file[from + 40..from + 48].try_into().unwrap());
    from..from + length as usize
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_group_is_refused() {
    let (disk, path, _) = two_groups().await;
    let file = disk.read(&path);
    for at in group_bytes(&file, 512) {
        for bit in 0..8 {
            let copy = disk.copy();
            copy.flip_bit(&path, at, bit);
            check_refused(&copy, &format!("byte {at} bit {bit}"));
        }
    }
    for at in 0..48 {
        let copy = disk.copy();
        copy.flip_bit(&path, at, 3);
        check_refused(&copy, &format!("segment header byte {at}"));
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_last_group_is_refused_after_a_clean_close() {
    let (disk, path, before) = two_groups().await;
    let journal = open(&disk).unwrap();
    journal.append(vec![record(21, 60)]).await.unwrap();
    journal.close().await;
    let file = disk.read(&path);
    let second = (512..before.len())
        .step_by(512)
        .find(|at| before[at + 40..at + 48] == [0; 8] && file[*at..at + 4] == *b"tgrp")
        .unwrap();
    let third = second + group_bytes(&file, second).len().next_multiple_of(512);
    for at in group_bytes(&file, second).chain(group_bytes(&file, third)) {
        let copy = disk.copy();
        copy.flip_bit(&path, at, 5);
        check_refused(&copy, &format!("byte {at}"));
    }
}

#[tokio::test]
async fn damage_to_an_earlier_segment_is_refused() {
    let disk = FaultyDisk::new();
    let journal = open(&disk).unwrap();
    for number in 1..=12 {
        journal.append(vec![record(number, 900)]).await.unwrap();
    }
    journal.close().await;
    let segments: Vec<PathBuf> = disk
        .names()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "journal"))
        .collect();
    assert!(segments.len() > 2);
    // The last group of a segment, its header and its record.
    let file = disk.read(&segments[0]);
    let last = (512..file.len())
        .step_by(512)
        .rfind(|at| file[*at..at + 4] == *b"tgrp")
        .unwrap();
    for at in group_bytes(&file, last) {
        let copy = disk.copy();
        copy.flip_bit(&segments[0], at, 0);
        check_refused(&copy, &format!("byte {at}"));
    }
    // A segment that is missing, shortened, or of another journal.
    let copy = disk.copy();
    copy.delete(&segments[1]);
    check_refused(&copy, "a missing segment");
    let copy = disk.copy();
    copy.replace(&segments[1], disk.read(&segments[1])[..2048].to_vec());
    check_refused(&copy, "a shortened segment");
    let other = FaultyDisk::new();
    let journal = open(&other).unwrap();
    for number in 1..=12 {
        journal.append(vec![record(number, 900)]).await.unwrap();
    }
    journal.close().await;
    let copy = disk.copy();
    copy.replace(&segments[1], other.read(&segments[1]));
    check_refused(&copy, "a segment of another journal");
    let copy = disk.copy();
    copy.replace(&segments[1], disk.read(&segments[2]));
    check_refused(&copy, "a segment under another's name");
}

#[tokio::test]
async fn an_error_never_shows_a_record() {
    let (disk, path, _) = two_groups().await;
    let file = disk.read(&path);
    disk.replace(&path, {
        let mut file = file;
        let secret = b"secret-secret-secret";
        file[600..600 + secret.len()].copy_from_slice(secret);
        file
    });
    let error = open(&disk).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
}
