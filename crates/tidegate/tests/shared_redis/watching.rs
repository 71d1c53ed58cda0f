//! Being told of changes, of what was lost, and until when all has been told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::Version;
use tidegate::port::{Clock, SharedCache, SharedKey, Watcher};
use tidegate_testkit::servers::{Redis, RedisOptions};

use super::scene::{ask, clock, eventually, fill, held, key, life, mark, one, open, raise};

#[derive(Clone, PartialEq, Debug)]
enum Told {
    Changed(SharedKey),
    Lost,
    Fence(Duration),
}

/// Notes all it is told, in order.
#[derive(Default)]
pub(crate) struct Ear(Mutex<Vec<Told>>);

impl Watcher for Ear {
    fn changed(&self, key: &SharedKey) {
        self.0.lock().unwrap().push(Told::Changed(key.clone()));
    }

    fn lost(&self) {
        self.0.lock().unwrap().push(Told::Lost);
    }

    fn fence(&self, at: Duration) {
        self.0.lock().unwrap().push(Told::Fence(at));
    }
}

impl Ear {
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn has_fence_since(&self, moment: Duration) -> bool {
        let told = self.0.lock().unwrap();
        told.iter()
            .any(|told| matches!(told, Told::Fence(at) if *at >= moment))
    }

    pub(crate) fn losses(&self) -> usize {
        let told = self.0.lock().unwrap();
        told.iter().filter(|told| **told == Told::Lost).count()
    }

    pub(crate) fn has_changed(&self, key: &SharedKey) -> bool {
        let changed = Told::Changed(key.clone());
        self.0.lock().unwrap().contains(&changed)
    }
}

const EVERY: Duration = Duration::from_millis(20);

/// Waits for a fence of a moment that is after the call.
pub(crate) async fn fence(ear: &Ear, clock: &dyn Clock) {
    let now = clock.elapsed();
    eventually("a fence", async || ear.has_fence_since(now)).await;
}

#[tokio::test]
async fn every_change_is_told_before_the_fence_after_it() {
    let server = Redis::start();
    let clock = clock();
    let (cache, other) = (
        super::scene::open_with(&[server.url()], &clock).await,
        open(&[server.url()], |_| {}).await.unwrap(),
    );
    raise(&cache, 1).await;
    let ear = Arc::new(Ear::default());
    cache.watch(ear.clone(), EVERY).await.unwrap();
    fence(&ear, &*clock).await;
    assert_eq!(ear.losses(), 0);
    for round in 0..30u64 {
        ear.forget();
        let keys: Vec<_> = (0..20u64)
            .map(|n| key(format!("{round}:{n}\r\n\0")))
            .collect();
        // By this node and by another.
        let by = [&cache, &other][usize::try_from(round % 2).unwrap()];
        match round % 3 {
            0 => {
                let asks: Vec<_> = keys.iter().map(|key| ask(key, 1)).collect();
                for asked in by.ask(&asks, life().fresh_until).await {
                    asked.unwrap();
                }
                let fills: Vec<_> = keys.iter().map(|key| fill(key, 1, held(2, "x"))).collect();
                for filled in by.fill(&fills).await {
                    assert!(filled.unwrap());
                }
            }
            1 => {
                let marks: Vec<_> = keys.iter().map(|key| mark(key, 1)).collect();
                for marked in by.mark(&marks).await {
                    marked.unwrap();
                }
            }
            _ => {
                let asks: Vec<_> = keys.iter().map(|key| ask(key, 1)).collect();
                by.ask(&asks, life().fresh_until).await;
                let changed: Vec<_> = keys
                    .iter()
                    .map(|key| (key.clone(), Version::NONE))
                    .collect();
                for invalidated in by.invalidate(&changed).await {
                    invalidated.unwrap();
                }
            }
        }
        fence(&ear, &*clock).await;
        for key in &keys {
            assert!(ear.has_changed(key), "round {round}: {key:?}");
        }
        assert_eq!(ear.losses(), 0, "round {round}");
    }
}

#[tokio::test]
async fn what_may_have_been_missed_is_told_as_lost() {
    let mut server = Redis::start();
    let clock = clock();
    let cache = super::scene::open_with(&[server.url()], &clock).await;
    raise(&cache, 1).await;
    let ear = Arc::new(Ear::default());
    cache.watch(ear.clone(), EVERY).await.unwrap();
    fence(&ear, &*clock).await;

    // The connection is cut.
    server.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("the loss of a connection to be told", async || {
        ear.losses() >= 2
    })
    .await;
    ear.forget();
    fence(&ear, &*clock).await;
    eventually("the cache to answer", async || {
        one(cache.mark(&[mark(&key("after"), 1)]).await).is_ok()
    })
    .await;
    fence(&ear, &*clock).await;
    assert!(ear.has_changed(&key("after")));

    // Everything is emptied, by somebody else.
    ear.forget();
    server.flush_all();
    eventually("an emptying to be told", async || ear.losses() > 0).await;

    // A generation is raised: entries are absent that nobody touched.
    ear.forget();
    raise(&cache, 2).await;
    fence(&ear, &*clock).await;
    assert!(ear.losses() > 0);

    // The server goes away: no fence until it is back, and a loss after.
    server.kill9();
    eventually("the end of the server to be told", async || {
        ear.losses() > 1
    })
    .await;
    let gone = clock.elapsed();
    server.restart();
    fence(&ear, &*clock).await;
    assert!(ear.has_fence_since(gone));
    let told = ear.0.lock().unwrap().clone();
    let first_fence = told
        .iter()
        .position(|told| matches!(told, Told::Fence(at) if *at >= gone));
    let last_loss = told.iter().rposition(|told| *told == Told::Lost);
    assert!(last_loss < first_fence, "{told:?}");
}

#[tokio::test]
async fn a_server_that_hangs_gives_no_fence() {
    let mut server = Redis::start();
    let clock = clock();
    let cache = super::scene::open_with(&[server.url()], &clock).await;
    let ear = Arc::new(Ear::default());
    cache.watch(ear.clone(), EVERY).await.unwrap();
    fence(&ear, &*clock).await;
    server.pause();
    let paused = clock.elapsed();
    eventually("a loss", async || ear.losses() > 0).await;
    assert!(!ear.has_fence_since(paused));
    server.resume();
    fence(&ear, &*clock).await;
}

#[tokio::test]
async fn a_demoted_server_is_watched_no_more() {
    let mut old = Redis::start();
    let mut new = Redis::start_as(RedisOptions {
        replica_of: Some(old.port()),
        ..RedisOptions::default()
    });
    new.wait_until_in_step_with(&old);
    let clock = clock();
    let cache = super::scene::open_with(&[old.url(), new.url()], &clock).await;
    raise(&cache, 1).await;
    let ear = Arc::new(Ear::default());
    cache.watch(ear.clone(), EVERY).await.unwrap();
    fence(&ear, &*clock).await;
    new.promote();
    old.follow(new.port());
    eventually("the change of servers to be told", async || {
        ear.losses() > 0
    })
    .await;
    eventually("the promoted server to answer", async || {
        let got = one(cache.get(&[key("a")]).await);
        matches!(
            got,
            Err(tidegate::port::SharedError::NeedsGeneration { .. })
        )
    })
    .await;
    fence(&ear, &*clock).await;
    ear.forget();
    raise(&cache, 2).await;
    one(cache.mark(&[mark(&key("a"), 1)]).await).unwrap();
    fence(&ear, &*clock).await;
    assert!(ear.has_changed(&key("a")));
}

#[tokio::test]
async fn a_closed_cache_tells_nothing_more() {
    let server = Redis::start();
    let clock = clock();
    let cache = super::scene::open_with(&[server.url()], &clock).await;
    let ear = Arc::new(Ear::default());
    cache.watch(ear.clone(), EVERY).await.unwrap();
    fence(&ear, &*clock).await;
    cache.close().await;
    assert!(cache.watch(ear.clone(), EVERY).await.is_err());
    drop(cache);
    // Nobody else has it any more.
    eventually("the watcher to be let go", async || {
        Arc::strong_count(&ear) == 1
    })
    .await;
}
