//! Rows written for each write acknowledged: keys drawn by Zipf's law are written again before they are
//! flushed, and go out once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::{Class, Durability, Strategy};

use super::keys::{Zipf, key};

const KEYS: usize = 100_000;
const WRITERS: usize = 16;
const RUN: Duration = Duration::from_secs(5);

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for (name, exponent) in [("uniform", 0.0), ("zipf 0.99", 0.99)] {
        for linger in [50, 1_000] {
            runtime.block_on(one(name, exponent, Duration::from_millis(linger)));
        }
    }
}

async fn one(name: &str, exponent: f64, linger: Duration) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let url = format!("sqlite:{}/bench.db", folder.path().display());
    let class = Class::new("b", "key:*")
        .strategy(Strategy::WriteBack)
        .durability(Durability::Memory)
        .linger(linger)
        .batch(10_000);
    let gate = tidegate::builder()
        .store_arc(tidegate::open_store(&url).await.unwrap())
        .class(class)
        .open()
        .await
        .unwrap();
    let zipf = Arc::new(Zipf::new(KEYS, exponent));
    let start = Instant::now();
    let writers = (0..WRITERS).map(|_| {
        let (gate, zipf) = (gate.clone(), Arc::clone(&zipf));
        tokio::spawn(async move {
            let mut random = fastrand::Rng::new();
            let mut count = 0_u64;
            while start.elapsed() < RUN {
                let key = key(zipf.draw(&mut random));
                gate.set(key, vec![b'7'; 100]).await.unwrap();
                count += 1;
                if count.is_multiple_of(64) {
                    tokio::task::yield_now().await;
                }
            }
            count
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    gate.drain(Duration::from_secs(60)).await.unwrap();
    let stats = gate.stats();
    let class = stats.classes.iter().find(|class| class.name == "b");
    let rows = class.map_or(0, |class| class.flushed + class.superseded);
    println!(
        "{name}, {KEYS} keys, linger {linger:?}: {:.0} writes/s acknowledged, {:.3} rows written for each",
        acknowledged as f64 / seconds,
        rows as f64 / acknowledged as f64,
    );
}
