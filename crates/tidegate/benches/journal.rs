//! Acknowledged appends a second with 1, 16 and 128 tasks, 100 bytes each, beside what the disk gives: one
//! thread that writes groups of the same size into a file filled ahead, and syncs each. And beside
//! redis-server, driven by redis-benchmark with as many clients, where these are on the PATH: that is a server
//! behind sockets, so it says what an application may choose between and not which journal is faster.
//!
//! `cargo bench -p tidegate --bench journal`. Figures of one run compare, those of two runs do not: both sides
//! take turns, and the table shows medians. It measures where the build folder is, or in the
//! folder named after `--`.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

#[path = "write_back/counting.rs"]
mod counting;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate_core::port::Journal;
use tidegate_testkit::servers::Redis;

use counting::CountingDisk;

const RECORD_BYTES: usize = 100;
const SEGMENT_BYTES: u64 = 64 << 20;
const RUN: Duration = Duration::from_millis(1_500);
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let raw = RawFile::new()?;
    let redis = RedisPair::start();
    println!(
        "{:>5}  {:>10}  {:>7}  {:>10}  {:>12}  {:>9}  {:>14}  {:>16}",
        "tasks",
        "appends/s",
        "group",
        "raw/s",
        "raw group/s",
        "of raw",
        "redis always/s",
        "redis everysec/s"
    );
    for tasks in [1, 16, 128] {
        let mut rates = Rates::default();
        for _ in 0..ROUNDS {
            // Kept until both are measured: a file system that frees blocks syncs slowly for a while.
            let folder = tempfile::tempdir_in(where_to_measure())?;
            let (rate, group) = journal(folder.path(), tasks)?;
            let raw = raw.measure(group)?;
            drop(folder);
            rates.appends.push(rate);
            rates.groups.push(group);
            rates.raws.push(raw);
            rates.of_raw.push(rate / raw);
            if let Some(redis) = &redis {
                rates.always.push(redis_benchmark(&redis.always, tasks)?);
                rates
                    .everysec
                    .push(redis_benchmark(&redis.everysec, tasks)?);
            }
        }
        rates.print(tasks);
    }
    Ok(())
}

/// One figure for each round.
#[derive(Default)]
struct Rates {
    appends: Vec<f64>,
    groups: Vec<f64>,
    raws: Vec<f64>,
    of_raw: Vec<f64>,
    always: Vec<f64>,
    everysec: Vec<f64>,
}

impl Rates {
    fn print(mut self, tasks: usize) {
        let appends = median(&mut self.appends);
        let (group, raw) = (median(&mut self.groups), median(&mut self.raws));
        let beside = |rates: &mut Vec<f64>| {
            if rates.is_empty() {
                return "-".to_owned();
            }
            let rate = median(rates);
            format!("{rate:.0} (x{:.2})", appends / rate)
        };
        println!(
            "{tasks:>5}  {appends:>10.0}  {group:>7.1}  {raw:>10.0}  {:>12.0}  {:>9.2}  {:>14}  {:>16}",
            raw / group,
            median(&mut self.of_raw),
            beside(&mut self.always),
            beside(&mut self.everysec),
        );
    }
}

/// Two servers, one that syncs each write before it answers and one that syncs once a second.
struct RedisPair {
    always: Redis,
    everysec: Redis,
}

impl RedisPair {
    /// None where Redis is not installed, which it says.
    fn start() -> Option<Self> {
        for program in ["redis-server", "redis-benchmark"] {
            if Command::new(program).arg("--version").output().is_err() {
                println!("{program} is not on the PATH: no figures of Redis");
                return None;
            }
        }
        let with = |policy| Redis::start_with(&["--appendonly", "yes", "--appendfsync", policy]);
        Some(Self {
            always: with("always"),
            everysec: with("everysec"),
        })
    }
}

/// Writes a second of values of the journal's records' size, with as many clients as tasks: a short try tells how
/// many make a run of about the usual length.
fn redis_benchmark(redis: &Redis, clients: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let measure = |requests: u64| -> Result<f64, Box<dyn std::error::Error>> {
        let output = Command::new("redis-benchmark")
            .args(["-t", "set", "--csv", "-r", "100000"])
            .args(["-p", &redis.port().to_string()])
            .args(["-c", &clients.to_string(), "-n", &requests.to_string()])
            .args(["-d", &RECORD_BYTES.to_string()])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let of_set = text.lines().find(|line| line.starts_with("\"SET\""));
        let rate = of_set.and_then(|line| line.split(',').nth(1));
        let rate = rate.ok_or("redis-benchmark printed no rate")?;
        Ok(rate.trim_matches('"').parse()?)
    };
    let short = measure(200 + 20 * clients as u64)?;
    measure((short * RUN.as_secs_f64()) as u64 + 1)
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// The folder given on the command line, or one in the build folder.
fn where_to_measure() -> PathBuf {
    let given = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    given.map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from)
}

/// Acknowledged appends a second, and how many shared a sync.
fn journal(folder: &Path, tasks: usize) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let disk = CountingDisk::default();
    let syncs = Arc::clone(&disk.syncs);
    let mut config = JournalConfig::new(folder);
    config.segment_bytes = SEGMENT_BYTES;
    let journal = Arc::new(FileJournal::open_on(config, Arc::new(disk))?);
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let before = syncs.load(Ordering::Relaxed);
    let start = now();
    let count = runtime.block_on(async {
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let journal = Arc::clone(&journal);
                tokio::spawn(async move {
                    let record = Bytes::from(vec![7; RECORD_BYTES]);
                    let mut count = 0_u64;
                    while start.elapsed() < RUN {
                        let last = journal.append(vec![record.clone()]).await?;
                        // The flusher of a layer above would follow like this.
                        if last.0 % 100_000 == 0 {
                            journal.trim(last).await?;
                        }
                        count += 1;
                    }
                    Ok::<_, tidegate_core::port::JournalError>(count)
                })
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.map_err(io::Error::other)??;
        }
        Ok::<_, Box<dyn std::error::Error>>(count)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let groups = syncs.load(Ordering::Relaxed) - before;
    runtime.block_on(journal.close());
    Ok((count as f64 / seconds, count as f64 / groups as f64))
}

/// A file filled ahead.
struct RawFile {
    file: File,
    _folder: tempfile::TempDir,
}

impl RawFile {
    fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir_in(where_to_measure())?;
        let mut options = File::options();
        let file = options.create_new(true).write(true);
        let file = file.open(folder.path().join("raw"))?;
        let zeros = vec![0; 1 << 20];
        for piece in 0..SEGMENT_BYTES >> 20 {
            file.write_all_at(&zeros, piece << 20)?;
        }
        file.sync_all()?;
        Ok(Self {
            file,
            _folder: folder,
        })
    }

    /// Records a second of one thread that writes and syncs groups of this many.
    fn measure(&self, group: f64) -> io::Result<f64> {
        let bytes = vec![7; (group * (RECORD_BYTES as f64 + 16.0)) as usize + 48];
        let start = now();
        let mut groups = 0_u64;
        let mut offset = 0;
        while start.elapsed() < RUN {
            self.file.write_all_at(&bytes, offset)?;
            self.file.sync_data()?;
            groups += 1;
            offset += bytes.len() as u64;
            if offset + bytes.len() as u64 > SEGMENT_BYTES {
                offset = 0;
            }
        }
        Ok(groups as f64 * group / start.elapsed().as_secs_f64())
    }
}
