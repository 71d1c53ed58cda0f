//! What a server does that it should not: forgets scripts, ends, has no room, is a replica.

use std::time::Duration;

use tidegate::Version;
use tidegate::port::{
    Asked, Ended, Got, Marked, PutOutcome, Shard, SharedCache, SharedDirty, SharedError, StoreTime,
    Token, shard_of,
};
use tidegate_testkit::servers::{Redis, RedisAppend, RedisOptions};

use super::scene::{
    ask, eventually, fill, held, key, life, mark, needs_generation, one, open, put, raise, release,
};

async fn got(cache: &dyn SharedCache, of: &[u8]) -> Result<Got, SharedError> {
    one(cache.get(&[key(of)]).await)
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
        arguments: vec!["--enable-debug-command".to_owned(), "yes".to_owned()],
        ..RedisOptions::default()
    });
    let cache = open(&[server.url()], |_| {}).await.unwrap();
    raise(&cache, 1).await;
    let (dirty, marked, full) = (key("dirty"), key("marked"), key("full"));
    let swept = key("swept");
    let PutOutcome::Dirty { version, .. } = one(cache.put(&[put(&dirty, "x")]).await).unwrap()
    else {
        panic!("it is dirty");
    };
    for key in [&marked, &swept] {
        one(cache.mark(&[mark(key, 1)]).await).unwrap();
    }
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
    one(cache.sweep(&[(swept.clone(), Token(1))]).await).unwrap();
    one(cache.invalidate(&[(dirty.clone(), Version::NONE)]).await).unwrap();
    let shard = shard_of(&dirty.key, cache.shards());
    let claimed = cache.claim(shard, 9, life().fresh_until, Duration::ZERO);
    assert_eq!(claimed.await.unwrap().len(), 1);
    one(cache.release(&[release(&marked, 1, ended)]).await).unwrap();
    assert!(matches!(
        got(&cache, b"marked").await.unwrap(),
        Got::Clean { .. }
    ));
    let flushed = tidegate::port::Flushed::Dropped;
    assert!(one(cache.settle(&[(dirty, version, flushed)]).await).unwrap());
    assert_eq!(got(&cache, b"dirty").await.unwrap(), Got::Nothing);
    // A generation is raised and opened without room, too.
    server.tell(&["DEBUG", "CHANGE-REPL-ID"]);
    eventually("another history to be noticed", async || {
        needs_generation(&got(&cache, b"marked").await)
    })
    .await;
    raise(&cache, 2).await;
    server.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    one(cache.put(&[put(&full, "x")]).await).unwrap();
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

#[tokio::test]
async fn an_entry_that_cannot_be_read_holds_up_no_other() {
    let server = Redis::start();
    let cache = open(&[server.url()], |config| config.shards = 1)
        .await
        .unwrap();
    raise(&cache, 1).await;
    for name in ["a", "b", "c"] {
        one(cache.put(&[put(&key(name), "x")]).await).unwrap();
    }
    let claim = |limit| cache.claim(Shard(0), limit, life().fresh_until, Duration::ZERO);
    // Another version of tidegate wrote the oldest one.
    server.tell(&["SETRANGE", "tg:{s0}:session:a", "0", "\u{2}"]);
    let claimed = claim(10).await.unwrap();
    let keys: Vec<_> = claimed.into_iter().map(|claimed| claimed.key).collect();
    assert_eq!(keys, [key("b"), key("c")]);
    // Where there is nothing else it is told.
    for name in ["b", "c"] {
        server.tell(&[
            "SETRANGE",
            &format!("tg:{{s0}}:session:{name}"),
            "0",
            "\u{2}",
        ]);
    }
    let refused = claim(10).await.unwrap_err();
    assert!(
        matches!(refused, SharedError::Configuration { .. }),
        "{refused}"
    );
    assert_eq!(
        server
            .tell(&["GETRANGE", "tg:{s0}:session:a", "1", "1"])
            .text(),
        "D"
    );
}

#[tokio::test]
async fn as_many_as_there_are_may_be_asked_for() {
    let server = Redis::start();
    let cache = open(&[server.url()], |config| config.shards = 1)
        .await
        .unwrap();
    raise(&cache, 1).await;
    let (parked, dirty, marked) = (key("parked"), key("dirty"), key("marked"));
    for key in [&parked, &dirty] {
        one(cache.put(&[put(key, "x")]).await).unwrap();
    }
    one(cache.mark(&[mark(&marked, 1)]).await).unwrap();
    let now = life().fresh_until;
    let claimed = cache.claim(Shard(0), usize::MAX, now, Duration::ZERO).await;
    let claimed = claimed.unwrap();
    assert_eq!(claimed.len(), 2);
    let of_parked = claimed
        .iter()
        .find(|claimed| claimed.key == parked)
        .unwrap();
    let said = tidegate::port::Flushed::Parked("refused".into());
    let refused = [(parked.clone(), of_parked.held.version, said)];
    assert!(one(cache.settle(&refused).await).unwrap());
    assert_eq!(cache.parked(Shard(0), usize::MAX).await.unwrap().len(), 1);
    assert!(cache.parked(Shard(0), 0).await.unwrap().is_empty());
    for before in [i64::MAX, 1001] {
        let before = StoreTime::from_micros(before);
        let leftovers = cache.leftovers(Shard(0), before, usize::MAX).await;
        assert_eq!(leftovers.unwrap().len(), 1);
    }
    for before in [i64::MIN, 1000] {
        let before = StoreTime::from_micros(before);
        let leftovers = cache.leftovers(Shard(0), before, usize::MAX).await;
        assert!(leftovers.unwrap().is_empty());
    }
}
