//! What a server does that it should not: forgets scripts, ends, has no room, is a replica.

use std::time::Duration;

use tidegate::port::{
    Asked, Ended, Got, Marked, PutOutcome, SharedCache, SharedDirty, SharedError,
};
use tidegate_testkit::servers::{Redis, RedisAppend, RedisOptions};

use super::scene::{ask, eventually, fill, held, key, life, mark, one, open, put, raise, release};

async fn got(cache: &dyn SharedCache, of: &[u8]) -> Result<Got, SharedError> {
    one(cache.get(&[key(of)]).await)
}

fn needs_generation<T>(answer: &Result<T, SharedError>) -> bool {
    matches!(answer, Err(SharedError::NeedsGeneration { .. }))
}

#[tokio::test]
async fn every_byte_comes_back() {
    let server = Redis::start();
    let cache = open(&[server.url()], |_| {}).await.unwrap();
    raise(&cache, 1).await;
    let all: Vec<u8> = (0..=255).collect();
    let key = key(&all);
    let asked = one(cache.ask(&[ask(&key, 1)], life().fresh_until).await).unwrap();
    assert_eq!(asked, Asked::Lease(None));
    let held = held(7, all);
    assert!(one(cache.fill(&[fill(&key, 1, held.clone())]).await).unwrap());
    let got = one(cache.get(&[key]).await).unwrap();
    let fresh_until = life().fresh_until;
    assert_eq!(got, Got::Clean { held, fresh_until });
}

#[tokio::test]
async fn scripts_that_were_forgotten_are_told_again() {
    let server = Redis::start();
    let cache = open(&[server.url()], |_| {}).await.unwrap();
    raise(&cache, 1).await;
    let keys: Vec<_> = (0..20u8).map(|n| key([n])).collect();
    for round in 0..3u64 {
        server.tell(&["SCRIPT", "FLUSH"]);
        let marks: Vec<_> = keys.iter().map(|key| mark(key, round)).collect();
        for marked in cache.mark(&marks).await {
            assert_eq!(marked.unwrap(), Marked::Quarantined);
        }
    }
}

#[tokio::test]
async fn a_restart_with_or_without_its_data_needs_a_generation() {
    let mut server = Redis::start_as(RedisOptions {
        append: RedisAppend::Always,
        ..RedisOptions::default()
    });
    let cache = open(&[server.url()], |_| {}).await.unwrap();
    raise(&cache, 1).await;
    let (clean, dirty) = (key("clean"), key("dirty"));
    one(cache.ask(&[ask(&clean, 1)], life().fresh_until).await).unwrap();
    assert!(one(cache.fill(&[fill(&clean, 1, held(7, "x"))]).await).unwrap());
    let PutOutcome::Dirty { version, .. } = one(cache.put(&[put(&dirty, "y")]).await).unwrap()
    else {
        panic!("it is dirty");
    };

    server.kill9();
    assert!(matches!(
        got(&cache, b"clean").await,
        Err(SharedError::Unavailable { .. })
    ));
    server.restart();
    eventually("the restart to be noticed", async || {
        needs_generation(&got(&cache, b"clean").await)
    })
    .await;
    assert!(needs_generation(&one(cache.mark(&[mark(&clean, 2)]).await)));
    raise(&cache, 2).await;
    assert_eq!(got(&cache, b"clean").await.unwrap(), Got::Nothing);
    // What was acknowledged stays.
    let still = got(&cache, b"dirty").await.unwrap();
    assert_eq!(still, Got::Dirty(held(version.raw(), "y")));

    server.flush_all();
    assert!(needs_generation(&got(&cache, b"dirty").await));
    raise(&cache, 3).await;
    assert_eq!(got(&cache, b"dirty").await.unwrap(), Got::Nothing);
    let PutOutcome::Dirty { version: after, .. } =
        one(cache.put(&[put(&dirty, "z")]).await).unwrap()
    else {
        panic!("it is dirty");
    };
    assert!(after > version, "no version is given out twice");
}

#[tokio::test]
async fn a_server_without_room_refuses_before_it_does_anything() {
    let server = Redis::start_as(RedisOptions {
        memory_max: Some((64 << 20, "noeviction".to_owned())),
        ..RedisOptions::default()
    });
    let cache = open(&[server.url()], |_| {}).await.unwrap();
    raise(&cache, 1).await;
    let (dirty, marked, full) = (key("dirty"), key("marked"), key("full"));
    let PutOutcome::Dirty { version, .. } = one(cache.put(&[put(&dirty, "x")]).await).unwrap()
    else {
        panic!("it is dirty");
    };
    one(cache.mark(&[mark(&marked, 1)]).await).unwrap();
    server.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = one(cache.put(&[put(&full, "x")]).await).unwrap_err();
    assert!(refused.to_string().contains("no room"), "{refused}");
    assert!(one(cache.mark(&[mark(&full, 2)]).await).is_err());
    assert_eq!(got(&cache, b"full").await.unwrap(), Got::Nothing);
    // What makes room, or ends something, is done.
    let ended = Ended::Committed {
        held: held(8, "y"),
        life: life(),
    };
    one(cache.release(&[release(&marked, 1, ended)]).await).unwrap();
    let flushed = tidegate::port::Flushed::Dropped;
    assert!(one(cache.settle(&[(dirty, version, flushed)]).await).unwrap());
    assert_eq!(got(&cache, b"dirty").await.unwrap(), Got::Nothing);
    server.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    one(cache.put(&[put(&full, "x")]).await).unwrap();
}

#[tokio::test]
async fn a_demoted_server_is_left_for_the_one_that_was_promoted() {
    let mut old = Redis::start();
    let mut new = Redis::start_as(RedisOptions {
        replica_of: Some(old.port()),
        ..RedisOptions::default()
    });
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
async fn a_server_that_hangs_holds_a_call_no_longer_than_its_timeout() {
    let mut server = Redis::start();
    let timeout = Duration::from_millis(200);
    let cache = open(&[server.url()], |config| {
        config.response_timeout = timeout;
        config.connect_timeout = timeout;
    })
    .await
    .unwrap();
    raise(&cache, 1).await;
    server.pause();
    let long = timeout * 10;
    let refused = tokio::time::timeout(long, cache.mark(&[mark(&key("a"), 1)])).await;
    assert!(matches!(
        one(refused.expect("it is given up")),
        Err(SharedError::Unavailable { .. })
    ));
    server.resume();
    eventually("it to answer again", async || {
        one(cache.mark(&[mark(&key("b"), 1)]).await).is_ok()
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
async fn passwords_are_used_and_never_told() {
    let server = Redis::start_with(&["--requirepass", "hunter2"]);
    let url = |user: &str| {
        server
            .url()
            .replace("redis://", &format!("redis://{user}@"))
    };
    open(&[url(":hunter2")], |_| {}).await.unwrap();
    for wrong in [url(":hunter3"), url("me:hunter3"), server.url()] {
        let error = open(&[wrong], |_| {}).await.err().expect("it is refused");
        assert!(
            matches!(error, SharedError::Configuration { .. }),
            "{error}"
        );
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
}

#[tokio::test]
async fn facts_are_those_of_the_server() {
    let server = Redis::start_as(RedisOptions {
        append: RedisAppend::Always,
        memory_max: Some((1 << 30, "allkeys-lru".to_owned())),
        ..RedisOptions::default()
    });
    let cache = open(&[server.url()], |_| {}).await.unwrap();
    let facts = cache.facts().await.unwrap();
    assert!(
        facts.syncs_always && facts.evicts_what_must_stay,
        "{facts:?}"
    );
    server.tell(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    server.tell(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let facts = cache.facts().await.unwrap();
    assert!(
        !facts.syncs_always && !facts.evicts_what_must_stay,
        "{facts:?}"
    );
}

#[tokio::test]
async fn a_key_of_another_kind_is_told_apart() {
    let server = Redis::start();
    let cache = open(&[server.url()], |config| config.shards = 1)
        .await
        .unwrap();
    raise(&cache, 1).await;
    server.tell(&["LPUSH", "tg:{s0}:session:list", "x"]);
    let refused = one(cache.mark(&[mark(&key("list"), 1)]).await).unwrap_err();
    assert!(
        matches!(refused, SharedError::Configuration { .. }),
        "{refused}"
    );
    server.tell(&["SET", "tg:{s0}:session:new", "\u{2}D and something"]);
    let refused = one(cache.mark(&[mark(&key("new"), 1)]).await).unwrap_err();
    assert!(
        matches!(refused, SharedError::Configuration { .. }),
        "{refused}"
    );
    assert!(got(&cache, b"new").await.is_err());
}

#[tokio::test]
async fn a_closed_cache_says_so() {
    let server = Redis::start();
    let cache = open(&[server.url()], |_| {}).await.unwrap();
    cache.close().await;
    assert!(cache.ping().await.is_err());
    assert!(
        got(&cache, b"a")
            .await
            .unwrap_err()
            .to_string()
            .contains("closed")
    );
}
