//! A database that is away while writers go on at full speed: memory stays within its bound, hits stay as fast.
//!
//! `TIDEGATE_STORE_DOWN_SECONDS=120` keeps it away for as long, and `TIDEGATE_STORE_DOWN_MIB=128` is the bound.
//! How fast the hits are is printed and fails nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

use super::latency::Latencies;
use super::support::{Client, Folder, error_text, ok};
use super::{figure, info};

const WRITERS: usize = 4;
/// Writes that one of them has under way.
const PIPELINED: usize = 100;
/// More than fit under the bound.
const KEYS: usize = 40_000;
const NEAR: u64 = 8 << 20;
const HOT: usize = 100;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn seconds() -> u64 {
    number("TIDEGATE_STORE_DOWN_SECONDS").unwrap_or(5)
}

/// The bound on dirty bytes.
fn dirty_max() -> u64 {
    number("TIDEGATE_STORE_DOWN_MIB").unwrap_or(16) << 20
}

/// What a writer was told.
#[derive(Default)]
struct Told {
    /// The last turn acknowledged of each key.
    last: BTreeMap<usize, usize>,
    acknowledged: u64,
    refused: u64,
}

fn write(port: u16, writer: usize, stop: &AtomicBool) -> Told {
    let mut client = Client::connect(port);
    let mut told = Told::default();
    let mut turn = 0;
    let value = "x".repeat(1000);
    while !stop.load(Ordering::Relaxed) {
        let turns = turn + 1..=turn + PIPELINED;
        turn += PIPELINED;
        let line = |turn: usize| format!("SET back:{writer}:{} {turn}:{value}", turn % KEYS);
        client.send(&turns.clone().map(line).collect::<Vec<_>>());
        for turn in turns {
            match client.read() {
                error @ Reply::Error(_) => {
                    let text = error_text(&error);
                    assert!(text.starts_with("OVERLOADED "), "{text}");
                    told.refused += 1;
                }
                reply => {
                    assert_eq!(reply, ok());
                    told.last.insert(turn % KEYS, turn);
                    told.acknowledged += 1;
                }
            }
        }
    }
    told
}

/// Reads the hot keys. One that the flood of writes has driven out is no hit, and cannot be loaded again as long
/// as the database is away.
fn read(client: &mut Client, latencies: &mut Latencies, misses: &mut u64) {
    for key in 0..HOT {
        let start = Instant::now();
        match client.ask(&format!("GET hot:{key}")) {
            Reply::Bulk(_) => latencies.add(start.elapsed()),
            Reply::Error(_) => *misses += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_store_that_is_away_costs_no_more_memory_than_the_bound() {
    let dirty_max = dirty_max();
    let mut postgres = Postgres::start();
    postgres.create_database("away");
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[store]\nurl = '{}'\n[near]\ncapacity = {NEAR}\n[journal]\nsize_max = '512MiB'\nsegment = '16MiB'\n\
         [[class]]\nname = 'back'\nkeys = 'back:*'\nstrategy = 'write-back'\nlinger = '10ms'\ndirty_max = {dirty_max}\n\
         when_full = 'reject'\n",
        postgres.url("away")
    ));
    let mut client = server.connect();
    for key in 0..HOT {
        client.expect(&format!("SET hot:{key} {key}"), ok());
    }
    let fresh_bytes = server.resident_bytes();
    // On a machine with nothing else to do a hit takes as long as a core takes to wake up.
    let mut misses = 0;
    let (mut alone, begin) = (Latencies::default(), Instant::now());
    while begin.elapsed() < Duration::from_secs(1) {
        read(&mut client, &mut alone, &mut misses);
    }
    let start = |stop: &Arc<AtomicBool>| -> Vec<_> {
        (0..WRITERS)
            .map(|writer| {
                let (stop, port) = (Arc::clone(stop), server.port());
                thread::spawn(move || write(port, writer, &stop))
            })
            .collect()
    };
    // The same load with the store there, for comparison, and so that every buffer has its size.
    let stop = Arc::new(AtomicBool::new(false));
    let writers = start(&stop);
    let (mut before, begin) = (Latencies::default(), Instant::now());
    while begin.elapsed() < Duration::from_secs(2) {
        read(&mut client, &mut before, &mut misses);
    }
    stop.store(true, Ordering::Relaxed);
    let earlier: Vec<Told> = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .collect();
    client.ask("TIDEGATE FLUSH TIMEOUT 60000");
    let settled_bytes = server.resident_bytes();

    postgres.kill9();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = start(&stop);
    let (mut during, begin) = (Latencies::default(), Instant::now());
    let mut most_bytes = 0;
    while begin.elapsed() < Duration::from_secs(seconds()) {
        read(&mut client, &mut during, &mut misses);
        most_bytes = most_bytes.max(server.resident_bytes());
    }
    stop.store(true, Ordering::Relaxed);
    let later: Vec<Told> = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .collect();
    let dirty_bytes: u64 = info(&mut client, "dirty_bytes").parse().unwrap();
    let journal_bytes = info(&mut client, "journal_bytes");
    let breaker = info(&mut client, "breaker");
    let acknowledged: u64 = later.iter().map(|told| told.acknowledged).sum();
    let refused: u64 = later.iter().map(|told| told.refused).sum();
    let growth = most_bytes.saturating_sub(settled_bytes);
    println!(
        "away for {} s: {acknowledged} writes acknowledged, {refused} refused; {dirty_bytes} bytes dirty of {dirty_max}; \
         resident {fresh_bytes} at the start, {settled_bytes} after the same load with the store there, at most {most_bytes} \
         without it: {:.2} times the bound more, and since the start {:.2} times the bounds of dirty and near; \
         journal {journal_bytes}; breaker {breaker}; hits without writers: {alone}; with: {before}; with, and the store away: {during}; {misses} misses",
        seconds(),
        growth as f64 / dirty_max as f64,
        most_bytes.saturating_sub(fresh_bytes) as f64 / (dirty_max + NEAR) as f64
    );
    assert!(refused > 0, "the bound was never met");
    assert!(dirty_bytes <= dirty_max, "{dirty_bytes}");
    assert!(
        growth < dirty_max * 3 / 2,
        "{growth} bytes more than before"
    );

    postgres.restart();
    let report = client.ask("TIDEGATE FLUSH TIMEOUT 120000");
    assert_eq!((figure(&report, "left"), figure(&report, "parked")), (0, 0));
    let rows = postgres.sql("away", "select key, split_part(value, ':', 1) from back");
    let rows: BTreeMap<&str, usize> = rows
        .lines()
        .map(|line| {
            let (key, turn) = line.split_once('|').unwrap();
            (key, turn.parse().unwrap())
        })
        .collect();
    for (writer, (earlier, later)) in earlier.iter().zip(&later).enumerate() {
        // What came later counts.
        let last = earlier
            .last
            .iter()
            .filter(|(key, _)| !later.last.contains_key(key));
        for (key, turn) in last.chain(&later.last) {
            assert_eq!(
                rows.get(&*format!("back:{writer}:{key}")),
                Some(turn),
                "{writer}:{key}"
            );
        }
    }
    assert_eq!(server.terminate(), 0);
}
