//! A database that takes its time over every statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_testkit::servers::Postgres;

use super::latency::Latencies;
use super::support::{Client, Folder, ok};
use super::{figure, info};

const WRITERS: usize = 4;
const KEYS: usize = 500;

fn write(port: u16, writer: usize, stop: &AtomicBool) -> (Latencies, Vec<u64>) {
    let mut client = Client::connect(port);
    let (mut latencies, mut last) = (Latencies::default(), vec![0; KEYS]);
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let key = turn % KEYS;
        let start = Instant::now();
        client.expect(&format!("SET slow:{writer}:{key} {turn}"), ok());
        latencies.add(start.elapsed());
        last[key] = turn as u64;
    }
    (latencies, last)
}

#[test]
fn a_slow_database_slows_no_write_back_write_and_gets_everything() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[store]\nurl = '{}'\n[[class]]\nname = 'slow'\nkeys = 'slow:*'\nstrategy = 'write-back'\nlinger = '10ms'\n",
        postgres.url(&database)
    ));
    postgres.sql(
        &database,
        "create function take_time() returns trigger language plpgsql as \
         $$ begin perform pg_sleep(0.25); return null; end $$; \
         create trigger take_time after insert or update on slow for each statement execute function take_time()",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (stop, port) = (Arc::clone(&stop), server.port());
            thread::spawn(move || write(port, writer, &stop))
        })
        .collect();
    thread::sleep(Duration::from_secs(3));
    stop.store(true, Ordering::Relaxed);
    let (mut latencies, mut expected) = (Latencies::default(), Vec::new());
    for (writer, thread) in writers.into_iter().enumerate() {
        let (some, last) = thread.join().unwrap();
        latencies.extend(some);
        let keys = last.into_iter().enumerate().filter(|(_, turn)| *turn > 0);
        expected.extend(keys.map(|(key, turn)| format!("slow:{writer}:{key}|{turn}")));
    }
    let mut client = server.connect();
    let lag = info(&mut client, "oldest_dirty_ms");
    let rounds = info(&mut client, "flush_rounds");
    let start = Instant::now();
    let report = client.ask("TIDEGATE FLUSH TIMEOUT 60000");
    println!(
        "writes beside statements of 250 ms: {latencies}; the oldest had waited {lag} ms; {rounds} batches; \
         the rest took {:?}",
        start.elapsed()
    );
    assert_eq!((figure(&report, "left"), figure(&report, "parked")), (0, 0));
    let mut rows: Vec<String> = postgres
        .sql(&database, "select key, value from slow")
        .lines()
        .map(str::to_owned)
        .collect();
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected);
    // No acknowledgement waits for a statement.
    assert!(
        latencies.percentile(50) < Duration::from_millis(100),
        "{latencies}"
    );
    assert_eq!(server.terminate(), 0);
}
