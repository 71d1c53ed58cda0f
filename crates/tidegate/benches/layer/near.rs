//! A hit in the near cache, beside a bare get of the cache beneath it.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use quick_cache::sync::Cache;
use tidegate::memory::MemoryStore;
use tidegate::{Class, Gate, Strategy};

use super::keys::{Zipf, key};
use super::median;

const KEYS: usize = 50_000;
const DRAWS: usize = 1 << 20;
const ROUNDS: usize = 9;

pub(crate) fn run() {
    let mut random = fastrand::Rng::with_seed(7);
    let zipf = Zipf::new(KEYS, 0.99);
    let draws: Vec<String> = (0..DRAWS).map(|_| key(zipf.draw(&mut random))).collect();
    let bare: Cache<Box<[u8]>, Bytes> = Cache::new(KEYS * 2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let gate = runtime.block_on(async {
        let gate = tidegate::builder()
            .store(MemoryStore::new())
            .class(Class::new("session", "session:*").strategy(Strategy::WriteAround))
            .class(Class::new("view", "view:*").strategy(Strategy::WriteAround))
            .open()
            .await
            .unwrap();
        for rank in 0..KEYS {
            let value = Bytes::from(vec![b'v'; 100]);
            bare.insert(key(rank).into_bytes().into(), value.clone());
            gate.set(key(rank), value).await.unwrap();
        }
        gate
    });
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = per_get(|| bare_gets(&bare, &draws));
        let near = per_get(|| runtime.block_on(gate_gets(&gate, &draws)));
        ours.push(near);
        theirs.push(bare);
        ratios.push(near / bare);
    }
    println!(
        "near hit: Gate::get {:.0} ns, bare quick_cache get {:.0} ns, ratio {:.2} (1 thread, {KEYS} keys, zipf 0.99)",
        median(ours),
        median(theirs),
        median(ratios)
    );
}

fn per_get(gets: impl FnOnce() -> usize) -> f64 {
    let start = Instant::now();
    let bytes = gets();
    let nanos = start.elapsed().as_nanos() as f64;
    assert_eq!(bytes, DRAWS * 100, "every get is a hit");
    nanos / DRAWS as f64
}

fn bare_gets(cache: &Cache<Box<[u8]>, Bytes>, draws: &[String]) -> usize {
    let mut bytes = 0;
    for key in draws {
        bytes += black_box(cache.get(key.as_bytes())).map_or(0, |value| value.len());
    }
    bytes
}

async fn gate_gets(gate: &Gate, draws: &[String]) -> usize {
    let mut bytes = 0;
    for key in draws {
        bytes += black_box(gate.get(key).await)
            .unwrap()
            .map_or(0, |value| value.len());
    }
    bytes
}
