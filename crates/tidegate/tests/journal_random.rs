//! The machine stops at any operation of the disk, syncs fail and lie, writes tear, the disk fills: what was
//! acknowledged is there, in order, and what was never written is not.
//!
//! A failure prints its seed; `TIDEGATE_JOURNAL_SEED=<seed>` tries that one alone. The seed decides what is
//! done; how the journal's threads take turns is not in its hands, so a rare failure may want a few tries.

#![cfg(feature = "journal")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tidegate::journal::faulty::{FaultyDisk, Survival};
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::{Journal, JournalError, Lsn, Replayed};

const SEED_VARIABLE: &str = "TIDEGATE_JOURNAL_SEED";
const CASES: u64 = 300;
const SEGMENT_BYTES: u64 = 4096;

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var(SEED_VARIABLE) {
        return vec![seed.parse().unwrap()];
    }
    let fresh = RandomState::new().build_hasher().finish();
    (0..CASES)
        .chain((0..CASES).map(|case| fresh.wrapping_add(case)))
        .collect()
}

/// Names the seed when the test panics, past the capture of the harness.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = format!("failed with {SEED_VARIABLE}={}\n", self.0);
            let _ = std::io::stderr().write_all(said.as_bytes());
        }
    }
}

fn survival(random: &mut Rng) -> Survival {
    match random.u8(0..8) {
        0 => Survival::All,
        1 => Survival::Synced,
        _ => Survival::Some(random.u64(..)),
    }
}

fn config() -> JournalConfig {
    let mut config = JournalConfig::new("journal");
    config.segment_bytes = SEGMENT_BYTES;
    config.bytes_max = 8 * SEGMENT_BYTES;
    config.space_retry = Duration::ZERO;
    config
}

/// What the journal must hold.
struct Model {
    random: Rng,
    disk: FaultyDisk,
    /// All records that have a place; the first has lsn 1.
    given: Vec<Bytes>,
    acknowledged: u64,
    trimmed: u64,
    /// Syncs lie: what was acknowledged may be gone.
    lies: bool,
}

impl Model {
    fn record(&mut self) -> Bytes {
        let bytes = match self.random.u8(0..10) {
            0 => self.random.usize(0..9_000),
            1..4 => self.random.usize(0..2_000),
            _ => self.random.usize(0..120),
        };
        let mut record = self.random.u64(..).to_le_bytes().to_vec();
        record.resize(8 + bytes, 3);
        record.into()
    }

    /// Opens and compares. None: refused as damaged, which only a lie explains.
    async fn open(&mut self) -> Option<FileJournal> {
        let journal = match FileJournal::open_on(config(), self.disk.mount()) {
            Ok(journal) => journal,
            Err(error) => {
                let damaged = matches!(error, JournalError::Corrupt { .. });
                assert!(damaged && self.lies, "{error}");
                return None;
            }
        };
        let mut found: Vec<Replayed> = Vec::new();
        loop {
            let from = found.last().map_or(Lsn(0), |last| last.lsn.next());
            let page = journal.replay(from, 50).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        let tail = journal.tail();
        let first = found.first().map_or(tail, |first| first.lsn);
        assert!(first.0 <= self.trimmed.max(1), "{first:?} is the first");
        for (lsn, replayed) in (first.0..).zip(&found) {
            assert_eq!(replayed.lsn, Lsn(lsn));
            let given = self.given.get(lsn as usize - 1);
            assert!(given == Some(&replayed.record), "record {lsn} is another");
        }
        assert_eq!(first.0 + found.len() as u64, tail.0);
        assert!(tail.0 <= self.given.len() as u64 + 1);
        assert!(
            self.lies || tail.0 > self.acknowledged,
            "{} is acknowledged, the tail is {}",
            self.acknowledged,
            tail.0
        );
        self.given.truncate(tail.0 as usize - 1);
        self.acknowledged = tail.0 - 1;
        self.trimmed = self.trimmed.min(tail.0);
        Some(journal)
    }

    fn arm(&mut self) {
        let (disk, random) = (&self.disk, &mut self.random);
        match random.u8(0..8) {
            0 => disk.fail_sync_after(random.u64(0..30)),
            1 => disk.tear_write_after(random.u64(0..30), random.usize(0..4_000)),
            2 => {}
            _ => disk.crash_after(random.u64(0..120), survival(random)),
        }
        if random.u8(0..3) == 0 {
            disk.set_space_bytes(Some(random.u64(1..6) * SEGMENT_BYTES));
        }
        if self.lies {
            disk.lie_about_syncs(random.u64(..));
        }
    }

    /// Uses the journal until it fails, or has enough.
    async fn live(&mut self, journal: &FileJournal) {
        for _ in 0..self.random.u32(1..80) {
            let answer = match self.random.u8(0..10) {
                0..6 => self.submit(journal).await,
                6..8 => self.wait(journal).await,
                _ => self.trim(journal).await,
            };
            match answer {
                Ok(()) => {}
                Err(JournalError::Full { .. }) => {
                    if self.random.bool() {
                        self.disk.set_space_bytes(None);
                    }
                    let all = Lsn(self.acknowledged + 1);
                    self.trimmed = self.trimmed.max(all.0);
                    // The keeper may just have met the end of the machine.
                    let _ = journal.trim(all).await;
                }
                Err(JournalError::TooLarge { .. }) => {}
                Err(JournalError::Poisoned { .. }) => {
                    let refused = journal.submit(&[Bytes::new()]);
                    assert!(matches!(refused, Err(JournalError::Poisoned { .. })));
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if self.random.bool() {
            journal.close().await;
        }
    }

    async fn submit(&mut self, journal: &FileJournal) -> Result<(), JournalError> {
        let count = self.random.usize(1..5);
        let records: Vec<Bytes> = (0..count).map(|_| self.record()).collect();
        let last = loop {
            match journal.submit(&records) {
                Err(JournalError::Busy { .. }) => journal.room(&records).await?,
                answer => break answer?,
            }
        };
        self.given.extend(records);
        assert_eq!(last, Lsn(self.given.len() as u64));
        Ok(())
    }

    async fn wait(&mut self, journal: &FileJournal) -> Result<(), JournalError> {
        let last = self.random.u64(0..=self.given.len() as u64);
        journal.wait(Lsn(last)).await?;
        self.acknowledged = self.acknowledged.max(last);
        assert!(journal.tail().0 > last);
        Ok(())
    }

    async fn trim(&mut self, journal: &FileJournal) -> Result<(), JournalError> {
        let mark = journal
            .crowded_before()
            .map_or_else(|| self.random.u64(0..=self.acknowledged + 1), |mark| mark.0);
        self.trimmed = self.trimmed.max(mark);
        let _ = journal.trim(Lsn(mark)).await;
        Ok(())
    }
}

async fn run(seed: u64) {
    let mut random = Rng::with_seed(seed);
    let mut model = Model {
        lies: random.u8(0..4) == 0,
        random,
        disk: FaultyDisk::new(),
        given: Vec::new(),
        acknowledged: 0,
        trimmed: 1,
    };
    for _ in 0..6 {
        let Some(journal) = model.open().await else {
            return;
        };
        model.arm();
        model.live(&journal).await;
        let survival = survival(&mut model.random);
        let kept_running = model.random.u8(0..4) == 0;
        if kept_running {
            model.disk.lift_faults();
        } else {
            model.disk.crash(survival);
        }
        drop(journal);
        model.disk.lift_faults();
    }
    model.open().await;
}

#[test]
fn whenever_the_machine_stops_what_was_acknowledged_is_there() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for seed in seeds() {
        let named = Seed(seed);
        runtime.block_on(run(seed));
        drop(named);
    }
}
