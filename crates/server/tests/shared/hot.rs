//! One key that is written a hundred times a second while everybody reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, ok};
use crate::world::{World, read_number};

const SECONDS: u64 = 4;
const WRITES_PER_SECOND: u64 = 100;

/// What the threads tell each other.
#[derive(Default)]
struct Told {
    /// The newest write that was acknowledged, and the newest that was sent.
    acknowledged: AtomicU64,
    sent: AtomicU64,
    stop: AtomicBool,
}

/// Reads until it is told to stop; how often. No read is older than what was acknowledged before it was sent, nor
/// newer than what was sent, and none goes back.
fn read(port: u16, told: &Told) -> u64 {
    let mut client = Client::connect(port);
    let (mut reads, mut last) = (0, 0);
    while !told.stop.load(Ordering::SeqCst) {
        let floor = told.acknowledged.load(Ordering::SeqCst).max(last);
        last = read_number(&mut client, "hot").unwrap();
        let sent = told.sent.load(Ordering::SeqCst);
        assert!((floor..=sent).contains(&last), "{floor} {last} {sent}");
        reads += 1;
    }
    reads
}

/// While a write of the key is under way its readers ask the store, at most one load after the other on each node; in
/// between the shared cache has it. So there are at most as many loads as fit one after the other into the writes: a
/// load and a write each are one trip to the store, and a write is in the way from its mark to its release, a few
/// trips. Twelve for each write and node is far more than that, and far less than there are reads.
#[test]
fn a_hot_key_that_is_written_all_the_time_is_read_correctly_and_loaded_seldom() {
    const LOADS_PER_WRITE_AND_NODE: u64 = 12;
    let world = World::new();
    let nodes = world.start::<3>("", "");
    let told = Arc::new(Told::default());
    let before: u64 = nodes.iter().map(|node| node.loads("default")).sum();
    let readers: Vec<_> = (0..9)
        .map(|reader| {
            let (port, told) = (nodes[reader % 3].port(), Arc::clone(&told));
            thread::spawn(move || read(port, &told))
        })
        .collect();
    let mut clients = nodes.each_ref().map(|node| node.connect());
    let start = Instant::now();
    let writes = SECONDS * WRITES_PER_SECOND;
    for write in 1..=writes {
        let due = Duration::from_secs(1) * u32::try_from(write).unwrap() / 100;
        thread::sleep(due.saturating_sub(start.elapsed()));
        told.sent.store(write, Ordering::SeqCst);
        let client = &mut clients[(write % 3) as usize];
        client.expect(&format!("SET hot {write}"), ok());
        told.acknowledged.store(write, Ordering::SeqCst);
    }
    let took = start.elapsed();
    told.stop.store(true, Ordering::SeqCst);
    let reads: u64 = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .sum();
    let loads = nodes.iter().map(|node| node.loads("default")).sum::<u64>() - before;
    println!("{writes} writes in {took:?}, {reads} reads, {loads} loads");
    assert!(reads > writes, "{reads} reads");
    assert!(
        loads <= LOADS_PER_WRITE_AND_NODE * 3 * writes,
        "{loads} loads"
    );
    for client in &mut clients {
        assert_eq!(read_number(client, "hot"), Ok(writes));
    }
}
