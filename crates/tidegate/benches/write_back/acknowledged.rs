//! Acknowledged writes a second, beside raw group commit and beside redis-server.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidegate::journal::{FileJournal, JournalConfig};
use tidegate::{Class, Durability, Gate, Strategy, WhenFull};
use tidegate_core::memory::MemoryStore;
use tidegate_testkit::servers::Redis;

use super::counting::CountingDisk;
use super::median;

const VALUE_BYTES: usize = 100;
const KEYS: u64 = 100_000;
const RUN: Duration = Duration::from_millis(1_000);
const ROUNDS: usize = 3;
/// What the journal adds to a value of this size: key, class, version, frame.
const RECORD_BYTES: usize = VALUE_BYTES + 80;
const FILE_BYTES: u64 = 64 << 20;

pub(crate) fn run() {
    let installed = ["redis-server", "redis-benchmark"]
        .iter()
        .all(|program| Command::new(program).arg("--version").output().is_ok());
    let start = |sync: &str| {
        let arguments = ["--appendonly", "yes", "--appendfsync", sync];
        installed.then(|| Redis::start_with(&arguments))
    };
    let (always, every_second) = (start("always"), start("everysec"));
    if !installed {
        println!("redis-server or redis-benchmark is not installed: no figures of it");
    }
    println!(
        "{:>7}  {:>11} {:>11} {:>11}  {:>11} {:>6}  {:>13} {:>15}",
        "writers",
        "cache-only",
        "memory",
        "journal",
        "raw commit",
        "share",
        "redis always",
        "redis everysec"
    );
    for writers in [1, 16, 128] {
        let mut sides: [Vec<f64>; 7] = Default::default();
        for _ in 0..ROUNDS {
            let cache_only = gate(writers, Strategy::CacheOnly, Durability::Memory).0;
            let memory = gate(writers, Strategy::WriteBack, Durability::Memory).0;
            let (journal, group) = gate(writers, Strategy::WriteBack, Durability::Journal);
            let raw = raw(group);
            let figures = [cache_only, memory, journal, raw, journal / raw];
            for (side, figure) in sides.iter_mut().zip(figures) {
                side.push(figure);
            }
            for (side, redis) in sides[5..].iter_mut().zip([&always, &every_second]) {
                side.extend(
                    redis
                        .as_ref()
                        .and_then(|redis| redis_set(redis.port(), writers)),
                );
            }
        }
        let [
            cache_only,
            memory,
            journal,
            raw,
            share,
            always,
            every_second,
        ] = sides.map(median);
        println!(
            "{writers:>7}  {cache_only:>11.0} {memory:>11.0} {journal:>11.0}  {raw:>11.0} {share:>6.2}  \
             {always:>13.0} {every_second:>15.0}"
        );
    }
}

/// Acknowledged writes a second, and how many records shared a sync, for the raw side to write as many.
fn gate(writers: usize, strategy: Strategy, durability: Durability) -> (f64, f64) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let disk = CountingDisk::default();
        let syncs = Arc::clone(&disk.syncs);
        let mut config = JournalConfig::new(folder.path());
        config.segment_bytes = FILE_BYTES;
        config.bytes_max = 16 * FILE_BYTES;
        let class = Class::new("b", "key:*")
            .strategy(strategy)
            .durability(durability)
            .linger(Duration::from_millis(50))
            .dirty_bytes_max(4 << 30, WhenFull::Block)
            .dirty_entries_max(u64::MAX);
        let gate = tidegate::builder()
            .store(MemoryStore::new())
            .journal(FileJournal::open_on(config, Arc::new(disk)).unwrap())
            .class(class)
            .open()
            .await
            .unwrap();
        let before = syncs.load(Ordering::Relaxed);
        let start = Instant::now();
        let writers = (0..writers).map(|_| tokio::spawn(write(gate.clone(), start)));
        let writers: Vec<_> = writers.collect();
        let mut count = 0;
        for writer in writers {
            count += writer.await.unwrap();
        }
        let seconds = start.elapsed().as_secs_f64();
        let groups = syncs.load(Ordering::Relaxed) - before;
        gate.drain(Duration::from_secs(30)).await.unwrap();
        (count as f64 / seconds, count as f64 / groups.max(1) as f64)
    })
}

async fn write(gate: Gate, start: Instant) -> u64 {
    let mut random = fastrand::Rng::new();
    let mut count = 0;
    while start.elapsed() < RUN {
        let key = format!("key:{:012}", random.u64(..KEYS));
        gate.set(key, vec![7; VALUE_BYTES]).await.unwrap();
        count += 1;
        // A write that need not wait would otherwise keep others from ever beginning.
        if count % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    count
}

/// Records a second of one thread that writes and syncs groups of this many.
fn raw(group: f64) -> f64 {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("raw");
    let file = File::options().create_new(true).write(true).open(path);
    let file = file.unwrap();
    let zeros = vec![0; 1 << 20];
    for piece in 0..FILE_BYTES >> 20 {
        file.write_all_at(&zeros, piece << 20).unwrap();
    }
    file.sync_data().unwrap();
    let bytes = vec![7; (group * RECORD_BYTES as f64) as usize];
    let (start, mut groups, mut offset) = (Instant::now(), 0_u64, 0);
    while start.elapsed() < RUN {
        file.write_all_at(&bytes, offset).unwrap();
        file.sync_data().unwrap();
        groups += 1;
        offset += bytes.len() as u64;
        if offset + bytes.len() as u64 > FILE_BYTES {
            offset = 0;
        }
    }
    groups as f64 * group / start.elapsed().as_secs_f64()
}

/// SETs a second of redis-benchmark with as many clients.
fn redis_set(port: u16, clients: usize) -> Option<f64> {
    let requests = 500 * clients;
    let output = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "-c", &clients.to_string()])
        .args(["-n", &requests.to_string(), "-r", &KEYS.to_string()])
        .args(["-d", &VALUE_BYTES.to_string(), "-t", "set", "--csv"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().find(|line| line.starts_with("\"SET\""))?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}
