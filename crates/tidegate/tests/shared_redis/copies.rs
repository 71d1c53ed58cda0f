//! Several copies of one server: the one that takes writes, its replicas, and two that both take writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tidegate::port::{Clock, Got, PutOutcome, SharedCache, SharedDirty, SharedError};
use tidegate_testkit::proxy::{Faults, Proxy, Way};
use tidegate_testkit::servers::{Redis, RedisOptions};

use super::load::Load;
use super::scene::{
    ask, clock, eventually, fill, held, key, life, mark, needs_generation, one, open, open_with,
    put, raise,
};
use super::watching::{Ear, fence};

async fn got(cache: &dyn SharedCache, of: &[u8]) -> Result<Got, SharedError> {
    one(cache.get(&[key(of)]).await)
}

#[tokio::test]
async fn a_demoted_server_is_left_for_the_one_that_was_promoted() {
    let mut old = Redis::start();
    let mut new = Redis::start_as(RedisOptions {
        replica_of: Some(old.port()),
        ..RedisOptions::default()
    });
    new.wait_until_in_step_with(&old);
    let cache = open(&[old.url(), new.url()], |_| {}).await.unwrap();
    raise(&cache, 1).await;
    let a = key("a");
    one(cache.ask(&[ask(&a, 1)], life().fresh_until).await).unwrap();
    assert!(one(cache.fill(&[fill(&a, 1, held(7, "x"))]).await).unwrap());
    new.wait_until_in_step_with(&old);
    new.promote();
    old.follow(new.port());
    eventually("the promoted server to be found", async || {
        needs_generation(&one(cache.mark(&[mark(&a, 2)]).await))
    })
    .await;
    raise(&cache, 2).await;
    assert_eq!(got(&cache, b"a").await.unwrap(), Got::Nothing);
    // It has the run id it had, and what the other has; but it is another server all the same.
    old.wait_until_in_step_with(&new);
    new.kill9();
    old.promote();
    eventually("the first server to be found again", async || {
        needs_generation(&got(&cache, b"a").await)
    })
    .await;
}

#[tokio::test]
async fn replicas_are_counted() {
    let primary = Redis::start();
    let mut replica = Redis::start_as(RedisOptions {
        replica_of: Some(primary.port()),
        ..RedisOptions::default()
    });
    replica.wait_until_in_step_with(&primary);
    let cache = open(&[primary.url()], |config| {
        config.replicas = 1;
        config.replica_timeout = Duration::from_millis(300);
    })
    .await
    .unwrap();
    raise(&cache, 1).await;
    let a = key("a");
    assert!(matches!(
        one(cache.put(&[put(&a, "x")]).await),
        Ok(PutOutcome::Dirty { .. })
    ));
    assert_eq!(cache.facts().await.unwrap().replicas, 1);
    replica.kill9();
    let refused = one(cache.put(&[put(&a, "y")]).await).unwrap_err();
    assert!(refused.to_string().contains("0 of 1 replicas"), "{refused}");
    // It may have been done, and was.
    let found = got(&cache, b"a").await.unwrap();
    assert!(matches!(found, Got::Dirty(found) if found.value == held(0, "y").value));
}

#[tokio::test]
async fn a_first_replica_makes_another_server() {
    let primary = Redis::start();
    let cache = open(&[primary.url()], |_| {}).await.unwrap();
    raise(&cache, 1).await;
    let (clean, dirty) = (key("clean"), key("dirty"));
    one(cache.ask(&[ask(&clean, 1)], life().fresh_until).await).unwrap();
    assert!(one(cache.fill(&[fill(&clean, 1, held(7, "x"))]).await).unwrap());
    one(cache.put(&[put(&dirty, "y")]).await).unwrap();
    let copy = || {
        Redis::start_as(RedisOptions {
            replica_of: Some(primary.port()),
            ..RedisOptions::default()
        })
    };
    let first = copy();
    eventually("the new history to be noticed", async || {
        needs_generation(&got(&cache, b"clean").await)
    })
    .await;
    raise(&cache, 2).await;
    assert_eq!(got(&cache, b"clean").await.unwrap(), Got::Nothing);
    assert!(matches!(got(&cache, b"dirty").await, Ok(Got::Dirty(_))));
    // Another one changes nothing.
    first.wait_until_in_step_with(&primary);
    let second = copy();
    second.wait_until_in_step_with(&primary);
    cache.ping().await.unwrap();
    assert!(matches!(got(&cache, b"dirty").await, Ok(Got::Dirty(_))));
}

#[tokio::test]
async fn of_two_that_take_writes_neither_is_connected_to() {
    let mut old = Redis::start();
    let mut new = Redis::start_as(RedisOptions {
        replica_of: Some(old.port()),
        ..RedisOptions::default()
    });
    new.wait_until_in_step_with(&old);
    let clock = clock();
    let cache = open_with(&[old.url(), new.url()], &clock).await;
    raise(&cache, 1).await;
    old.kill9();
    new.promote();
    eventually("the promoted server to be found", async || {
        needs_generation(&got(&cache, b"a").await)
    })
    .await;
    raise(&cache, 2).await;
    let ear = Arc::new(Ear::default());
    cache
        .watch(ear.clone(), Duration::from_millis(20))
        .await
        .unwrap();
    fence(&ear, &*clock).await;

    // The first comes back and does not know that it was replaced. Who is connected stays where it is.
    old.restart();
    one(cache.mark(&[mark(&key("a"), 1)]).await).unwrap();
    fence(&ear, &*clock).await;
    let both = open(&[old.url(), new.url()], |_| {}).await.err().unwrap();
    assert!(both.to_string().contains("both take writes"), "{both}");

    // Who is cut off waits until there is one again.
    ear.forget();
    new.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("both to be seen", async || {
        let refused = got(&cache, b"a").await.err();
        refused.is_some_and(|error| error.to_string().contains("both take writes"))
    })
    .await;
    old.follow(new.port());
    eventually("the only one to be found", async || {
        got(&cache, b"a").await.is_ok()
    })
    .await;
    let found = clock.elapsed();
    fence(&ear, &*clock).await;
    assert!(ear.losses() > 0 && ear.has_fence_since(found));
    assert!(one(cache.mark(&[mark(&key("b"), 1)]).await).is_ok());
    fence(&ear, &*clock).await;
    assert!(ear.has_changed(&key("b")));
}

/// Waits, not in a task.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    const TRIES: u32 = 50_000_000;
    for _ in 0..TRIES {
        if is_so() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("waited too long for {what}");
}

/// Each time the replica lags behind: what it takes over with has neither the last marks nor the last writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_to_replicas_that_lag_serve_nothing_stale() {
    let start = || {
        Redis::start_as(RedisOptions {
            arguments: ["--repl-diskless-sync-delay", "0"]
                .map(str::to_owned)
                .into(),
            ..RedisOptions::default()
        })
    };
    let mut servers = [start(), start()];
    let mut ways = Vec::new();
    for server in &servers {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        ways.push(Proxy::start(target, 1).await.unwrap());
    }
    servers[1].follow(ways[0].port());
    servers[1].wait_until_in_step_with(&servers[0]);
    let urls: Vec<_> = servers.iter().map(Redis::url).collect();
    let mut caches = Vec::new();
    for _ in 0..2 {
        caches.push(Arc::new(open(&urls, |_| {}).await.unwrap()));
    }
    raise(&*caches[0], 1).await;
    let load = Load::begin(caches);
    let counts = Arc::clone(&load.counts);
    let failovers = tokio::task::spawn_blocking(move || {
        for round in 0..8 {
            let (old, new) = (round % 2, (round + 1) % 2);
            servers[new].wait_until_in_step_with(&servers[old]);
            let done = counts.done();
            wait_for("some writes", || counts.done() > done + 50);
            ways[old].set(Faults {
                to_client: Way {
                    held: true,
                    ..Way::default()
                },
                ..Faults::default()
            });
            let done = counts.done();
            wait_for("writes that are not copied", || counts.done() > done + 50);
            // The old one takes no more writes from here on.
            servers[old].follow(ways[new].port());
            ways[old].cut_all();
            servers[new].promote();
            ways[old].heal();
        }
        wait_for("writes after all that", || counts.have(500));
        servers
    });
    let servers = failovers.await.unwrap();
    load.end(500).await;
    drop(servers);
}
