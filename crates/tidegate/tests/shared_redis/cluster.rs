//! A Redis Cluster of three primaries: slots that move, and primaries that are replaced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tidegate::Version;
use tidegate::port::{Asked, Got, PutOutcome, SharedCache, SharedDirty, SharedError, shard_of};
use tidegate::redis::{RedisConfig, RedisSharedCache};
use tidegate_testkit::servers::{Redis, RedisCluster, RedisClusterOptions};

use super::load::{Load, keep_current};
use super::scene::{ask, clock, eventually, fill, held, key, life, one, open, put, raise};
use super::watching::{Ear, fence};

const SHARDS: u16 = 16;

/// The slot of a shard.
fn slot(cluster: &RedisCluster, shard: u16) -> u16 {
    cluster.slot_of(format!("tg:{{s{shard}}}:.m").as_bytes())
}

#[tokio::test]
async fn shards_are_found_on_every_primary() {
    let cluster = RedisCluster::start();
    // One address is enough to find the others.
    let cache = open(&cluster.urls()[..1], |config| config.shards = SHARDS)
        .await
        .unwrap();
    raise(&cache, 1).await;
    let owners: BTreeSet<_> = (0..SHARDS)
        .map(|shard| cluster.owner_of(slot(&cluster, shard)))
        .collect();
    assert_eq!(owners.len(), 3, "the shards are on all of them");
    let keys: Vec<_> = (0..200u32).map(|n| key(n.to_be_bytes())).collect();
    let asks: Vec<_> = keys.iter().map(|key| ask(key, 1)).collect();
    for asked in cache.ask(&asks, life().fresh_until).await {
        asked.unwrap();
    }
    let fills: Vec<_> = keys.iter().map(|key| fill(key, 1, held(7, "x"))).collect();
    for filled in cache.fill(&fills).await {
        assert!(filled.unwrap());
    }
    for got in cache.get(&keys).await {
        assert!(matches!(got.unwrap(), Got::Clean { .. }));
    }
    cache.clear().await.unwrap();
    for got in cache.get(&keys).await {
        assert_eq!(got.unwrap(), Got::Nothing);
    }
    cache.ping().await.unwrap();
    assert!(cache.facts().await.unwrap().server.contains("7."));
}

#[tokio::test]
async fn a_slot_that_stands_between_two_primaries_is_one_place_all_the_same() {
    let cluster = RedisCluster::start();
    let cache = open(&cluster.urls(), |config| {
        config.shards = SHARDS;
        config.response_timeout = Duration::from_millis(300);
    })
    .await
    .unwrap();
    raise(&cache, 1).await;
    let a = key("a");
    let shard = shard_of(&a.key, SHARDS);
    let slot = slot(&cluster, shard.0);
    let PutOutcome::Dirty { version, .. } = one(cache.put(&[put(&a, "x")]).await).unwrap() else {
        panic!("it is dirty");
    };
    let from = cluster.owner_of(slot).unwrap();
    let to = (from + 1) % 3;
    let moving = cluster.begin_move(slot, from, to);
    // What is still there is served where it was.
    let got = one(cache.get(std::slice::from_ref(&a)).await).unwrap();
    assert_eq!(got, Got::Dirty(held(version.raw(), "x")));
    // Only the generation has moved: neither has both.
    let meta = format!("tg:{{s{}}}:.m", shard.0).into_bytes();
    moving.move_keys(&[meta]);
    let between = one(cache.get(std::slice::from_ref(&a)).await);
    assert!(
        matches!(between, Err(SharedError::Unavailable { .. })),
        "{between:?}"
    );
    // All have: the other is asked, which is another server than the generation was raised for.
    moving.move_keys(&moving.keys(100));
    let there = one(cache.get(std::slice::from_ref(&a)).await);
    assert!(
        matches!(there, Err(SharedError::NeedsGeneration { .. })),
        "{there:?}"
    );
    let state = one(cache.open_generation(&[shard], 2).await).unwrap();
    assert!(state.is_current && !state.is_open, "{state:?}");
    let got = one(cache.get(std::slice::from_ref(&a)).await).unwrap();
    assert_eq!(got, Got::Dirty(held(version.raw(), "x")));
    moving.finish();
    assert!(one(cache.open(&[shard], 2).await).unwrap());
    let PutOutcome::Dirty { version: after, .. } = one(cache.put(&[put(&a, "y")]).await).unwrap()
    else {
        panic!("it is dirty");
    };
    assert!(after > version);
}

/// One that has no shard of ours is not watched, until a key that is on its way is asked for there.
#[tokio::test]
async fn what_changes_on_the_way_is_told() {
    let cluster = RedisCluster::start();
    let clock = clock();
    let mut config = RedisConfig::from_urls(cluster.urls().iter().map(String::as_str)).unwrap();
    config.shards = 1;
    let open_one = || RedisSharedCache::open(config.clone(), clock.clone());
    let (other, cache) = (open_one().await.unwrap(), open_one().await.unwrap());
    raise(&other, 1).await;
    let (a, b) = (key("a"), key("b"));
    let make_clean = async || {
        for key in [&a, &b] {
            let asked = one(other.ask(&[ask(key, 1)], life().fresh_until).await).unwrap();
            assert_eq!(asked, Asked::Lease(None));
            assert!(one(other.fill(&[fill(key, 1, held(4, "x"))]).await).unwrap());
        }
    };
    make_clean().await;
    let ear = Arc::new(Ear::default());
    let every = Duration::from_millis(20);
    cache.watch(ear.clone(), every).await.unwrap();
    fence(&ear, &*clock).await;

    let slot = slot(&cluster, 0);
    let from = cluster.owner_of(slot).unwrap();
    let moving = cluster.begin_move(slot, from, (from + 1) % 3);
    moving.move_keys(&moving.keys(100));
    raise(&other, 2).await;
    make_clean().await;
    ear.forget();
    // A copy may be made of this.
    let got = one(cache.get(std::slice::from_ref(&a)).await).unwrap();
    assert!(matches!(got, Got::Clean { .. }), "{got:?}");
    let newer = (a.clone(), Version::from_raw(6));
    one(other.invalidate(&[newer]).await).unwrap();
    fence(&ear, &*clock).await;
    assert!(ear.has_changed(&a) || ear.losses() > 0);

    // From now on it is watched like the others.
    ear.forget();
    one(other.evict(std::slice::from_ref(&b)).await).unwrap();
    fence(&ear, &*clock).await;
    assert!(ear.has_changed(&b) && ear.losses() == 0);
    moving.finish();
}

/// What a node believes: of each node its epoch and its slots, apart from those on their way.
fn belief(node: &Redis) -> BTreeSet<Vec<String>> {
    let told = node.tell(&["CLUSTER", "NODES"]).text();
    let of = |line: &str| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let slots = words.iter().skip(8).filter(|slots| !slots.starts_with('['));
        [&words[0], &words[6]]
            .into_iter()
            .chain(slots)
            .cloned()
            .collect()
    };
    told.lines().map(of).collect()
}

/// Waits until all primaries believe the same. One that has not heard of the last move may undo it: two that took a
/// slot at the same time then have the same epoch, or an older one.
fn wait_for_agreement(cluster: &RedisCluster) {
    const TRIES: u32 = 20_000;
    for _ in 0..TRIES {
        let mut beliefs = cluster.nodes().iter().map(belief);
        let first = beliefs.next();
        if beliefs.all(|belief| Some(belief) == first) {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the nodes do not agree");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_back_and_forth_under_load() {
    let cluster = RedisCluster::start();
    let cache = Arc::new(
        open(&cluster.urls(), |config| config.shards = SHARDS)
            .await
            .unwrap(),
    );
    raise(&*cache, 1).await;
    let load = Load::begin(vec![cache]);
    let counts = Arc::clone(&load.counts);
    let moves = tokio::task::spawn_blocking(move || {
        let owner = |shard| {
            cluster
                .owner_of(slot(&cluster, shard))
                .expect("it has an owner")
        };
        let mut owners: Vec<_> = (0..SHARDS).map(owner).collect();
        for round in 0..1000u16 {
            if round > 20 && counts.have(500) {
                break;
            }
            for shard in [round % SHARDS, (round + 5) % SHARDS] {
                let slot = slot(&cluster, shard);
                let from = owners[usize::from(shard)];
                let to = (from + 1) % 3;
                let moving = cluster.begin_move(slot, from, to);
                moving.move_keys(&moving.keys(3));
                moving.finish();
                wait_for_agreement(&cluster);
                owners[usize::from(shard)] = to;
            }
        }
        cluster
    });
    let cluster = moves.await.unwrap();
    load.end(500).await;
    drop(cluster);
}

#[tokio::test]
async fn a_primary_that_is_gone_is_replaced_and_needs_a_generation() {
    let mut cluster = RedisCluster::start_with(&RedisClusterOptions {
        replicas: true,
        ..RedisClusterOptions::default()
    });
    let cache = open(&cluster.urls(), |config| config.shards = SHARDS)
        .await
        .unwrap();
    raise(&cache, 1).await;
    let ear = Arc::new(Ear::default());
    cache
        .watch(ear.clone(), Duration::from_millis(20))
        .await
        .unwrap();
    let a = key("a");
    let shard = shard_of(&a.key, SHARDS);
    let PutOutcome::Dirty { version, .. } = one(cache.put(&[put(&a, "x")]).await).unwrap() else {
        panic!("it is dirty");
    };
    let owner = cluster.owner_of(slot(&cluster, shard.0)).unwrap();
    let replica = &cluster.nodes()[owner + 3];
    replica.wait_until_in_step_with(&cluster.nodes()[owner]);
    cluster.node(owner).kill9();
    eventually("a replica to take over", async || {
        let got = one(cache.get(std::slice::from_ref(&a)).await);
        matches!(got, Err(SharedError::NeedsGeneration { .. }))
    })
    .await;
    eventually("a loss to be told", async || ear.losses() > 0).await;
    let generations = AtomicU64::new(2);
    keep_current(&cache, &generations).await;
    let got = one(cache.get(std::slice::from_ref(&a)).await).unwrap();
    assert_eq!(got, Got::Dirty(held(version.raw(), "x")));
    ear.forget();
    eventually("all primaries to be watched", async || {
        ear.has_fence_since(Duration::ZERO)
    })
    .await;
}
