//! Answers that come late, to somebody else's question, or to nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tidegate::port::{Got, SharedCache, SharedError, SharedKey};
use tidegate::redis::RedisSharedCache;
use tidegate_testkit::servers::Redis;

use super::scene::{ask, eventually, fill, held, key, life, one, open, raise};

const READERS: u64 = 16;
/// So long an answer is waited for, and somewhat longer the server answers nobody.
const PATIENCE: Duration = Duration::from_millis(30);
const PAUSE: &str = "45";

#[derive(Default)]
struct Counts {
    served: AtomicU32,
    late: AtomicU32,
    given_up: AtomicU32,
    is_over: AtomicBool,
}

/// Each reader has two keys, and knows what they hold.
fn keys_of(reader: u64) -> [SharedKey; 2] {
    [0, 1].map(|n| key(format!("{reader}:{n}")))
}

async fn read(cache: Arc<RedisSharedCache>, reader: u64, counts: Arc<Counts>) {
    let keys = keys_of(reader);
    let mut round = reader;
    while !counts.is_over.load(Ordering::Relaxed) {
        round += 1;
        let asked = &keys[..if round.is_multiple_of(2) { 1 } else { 2 }];
        let get = cache.get(asked);
        let got = match round % 5 {
            // Somebody who asked and left.
            0 => match tokio::time::timeout(Duration::from_millis(2), get).await {
                Ok(got) => got,
                Err(_) => {
                    counts.given_up.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            },
            _ => get.await,
        };
        assert_eq!(got.len(), asked.len());
        for (n, got) in got.into_iter().enumerate() {
            match got {
                Ok(Got::Clean { held: found, .. }) => {
                    assert_eq!(found, held(2 + reader, format!("{reader}:{n}")));
                    counts.served.fetch_add(1, Ordering::Relaxed);
                }
                Err(SharedError::Unavailable { .. }) => {
                    counts.late.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                other => panic!("{reader}:{n} is {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_belong_to_their_questions() {
    let server = Redis::start();
    let patient = open(&[server.url()], |_| {}).await.unwrap();
    raise(&patient, 1).await;
    for reader in 0..READERS {
        for (n, key) in keys_of(reader).iter().enumerate() {
            one(patient.ask(&[ask(key, 1)], life().fresh_until).await).unwrap();
            let held = held(2 + reader, format!("{reader}:{n}"));
            assert!(one(patient.fill(&[fill(key, 1, held)]).await).unwrap());
        }
    }
    let cache = open(&[server.url()], |config| config.response_timeout = PATIENCE)
        .await
        .unwrap();
    let cache = Arc::new(cache);
    let counts = Arc::new(Counts::default());
    let readers: Vec<_> = (0..READERS)
        .map(|reader| tokio::spawn(read(Arc::clone(&cache), reader, Arc::clone(&counts))))
        .collect();
    let count = |of: &AtomicU32| of.load(Ordering::Relaxed);
    for _ in 0..20 {
        let (served, late) = (count(&counts.served), count(&counts.late));
        server.tell(&["CLIENT", "PAUSE", PAUSE]);
        eventually("an answer that comes too late", async || {
            count(&counts.late) > late
        })
        .await;
        eventually("answers in time", async || {
            count(&counts.served) > served + 100
        })
        .await;
    }
    assert!(count(&counts.given_up) > 0);
    counts.is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}
