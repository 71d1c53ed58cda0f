//! Generations: raised, closed, opened; and what is lost.

use tidegate_core::port::{
    Ask, Asked, Ended, Fill, Flushed, Got, Mark, Release, Replay, SharedError, SharedKey,
};

use super::stage::{
    CLAIM, NOW, Stage, clean, committed, held, key, life, store_time, token, version,
};

/// What every method but those about generations answers for one key.
async fn errors(stage: &Stage, key: &SharedKey) -> Vec<(&'static str, Option<SharedError>)> {
    let (cache, shard) = (stage.cache(), stage.shard(key));
    let asked = Ask {
        key: key.clone(),
        token: token(1),
    };
    let fill = Fill {
        key: key.clone(),
        token: token(1),
        held: held(5, "five"),
        life: life(),
    };
    let mark = Mark {
        key: key.clone(),
        token: token(2),
        commit_by: store_time(1),
    };
    let release = Release {
        key: key.clone(),
        token: token(2),
        ended: Ended::Aborted,
    };
    let replay = Replay {
        key: key.clone(),
        held: held(5, "five"),
        base: None,
        now: NOW,
    };
    let put = stage.put_of(key, Some("put"), NOW);
    let gone = (key.clone(), version(5), Flushed::Dropped);
    let keys = [key.clone()];
    macro_rules! each {
        ($($name:ident($($argument:expr),*)),* $(,)?) => {
            vec![$((stringify!($name), cache.$name($($argument),*).await.remove(0).err())),*]
        };
    }
    let mut errors = each![
        get(&keys),
        ask(&[asked], NOW),
        fill(&[fill]),
        mark(&[mark]),
        release(&[release]),
        sweep(&[(key.clone(), token(2))]),
        invalidate(&[(key.clone(), version(5))]),
        evict(&keys),
        put(&[put]),
        settle(&[gone]),
        unpark(&[(key.clone(), version(5))], NOW),
        replay(&[replay]),
        dirty(&[shard]),
        open(&[shard], 1),
    ];
    let left = cache.leftovers(shard, store_time(9), 9).await;
    errors.push(("leftovers", left.err()));
    errors.push(("claim", cache.claim(shard, 9, NOW, CLAIM).await.err()));
    errors.push(("parked", cache.parked(shard, 9).await.err()));
    errors
}

async fn expect_needs_generation(stage: &Stage, key: &SharedKey) {
    let shard = stage.shard(key);
    for (method, error) in errors(stage, key).await {
        match error {
            Some(SharedError::NeedsGeneration { shard: of }) => assert_eq!(of, shard, "{method}"),
            other => panic!("{method} answers {other:?}"),
        }
    }
}

pub(super) async fn a_new_shard_needs_a_generation(stage: Stage) {
    // The stage has raised one: lose it, or there is no new shard to look at.
    if !stage.scene.lose_everything().await {
        return;
    }
    stage.answers().await;
    for state in stage.cache().shard_states(&stage.all_shards()).await {
        let state = state.unwrap();
        assert_eq!(state.generation, 0);
        assert!(!state.is_current && !state.is_open, "{state:?}");
    }
    expect_needs_generation(&stage, &key("a")).await;
}

pub(super) async fn a_generation_is_closed_until_it_is_opened(mut stage: Stage) {
    if !stage.scene.lose_everything().await {
        return;
    }
    stage.answers().await;
    stage.raise().await;
    let shards = stage.all_shards();
    let cache = stage.cache();
    for wrong in [stage.generation - 1, stage.generation + 1] {
        for opened in cache.open(&shards, wrong).await {
            assert!(!opened.unwrap(), "opened with generation {wrong}");
        }
    }
    for state in cache.shard_states(&shards).await {
        assert!(!state.unwrap().is_open);
    }
    stage.open().await;
    // Once more is the same.
    stage.open().await;
    for state in cache.shard_states(&shards).await {
        let state = state.unwrap();
        assert!(state.is_open && state.is_current);
        assert_eq!(state.generation, stage.generation);
    }
}

pub(super) async fn a_current_generation_is_not_raised(stage: Stage) {
    let key = key("a");
    stage.make_clean(&key, &held(5, "five")).await;
    let shards = [stage.shard(&key)];
    for generation in [1, 2, 9] {
        let states = stage.cache().open_generation(&shards, generation).await;
        for state in states {
            let state = state.unwrap();
            assert_eq!(state.generation, stage.generation);
            assert!(state.is_open && state.is_current);
        }
    }
    assert_eq!(stage.get(&key).await, clean(&held(5, "five")));
}

/// A closed shard, if the scene can make one.
async fn closed(stage: &mut Stage) -> bool {
    if !stage.scene.lose_everything().await {
        return false;
    }
    stage.answers().await;
    stage.raise().await;
    true
}

pub(super) async fn no_leases_are_given_while_closed(mut stage: Stage) {
    if !closed(&mut stage).await {
        return;
    }
    let key = key("a");
    assert_eq!(stage.get(&key).await, Got::Nothing);
    assert_eq!(stage.ask(&key, 1).await, Asked::Bypass);
    assert!(!stage.fill(&key, 1, &held(5, "five")).await);
    stage.open().await;
    assert!(!stage.fill(&key, 1, &held(5, "five")).await);
    stage.lease(&key, 2).await;
}

pub(super) async fn a_quarantine_of_a_closed_shard_is_tainted(mut stage: Stage) {
    if !closed(&mut stage).await {
        return;
    }
    let [alone, joined] = stage.keys();
    stage.quarantine(&alone, 1).await;
    stage.quarantine(&joined, 1).await;
    stage.expect_quarantine(&alone).await;
    stage.open().await;
    stage.release(&alone, 1, committed(6, "six")).await;
    stage.expect_absent(&alone).await;
    // Whoever joins later has the taint too.
    stage.quarantine(&joined, 2).await;
    stage.release(&joined, 1, committed(6, "six")).await;
    stage.release(&joined, 2, committed(7, "seven")).await;
    stage.expect_absent(&joined).await;
    // The next quarantine of the key has not.
    stage.quarantine(&joined, 3).await;
    stage.release(&joined, 3, committed(8, "eight")).await;
    assert_eq!(stage.get(&joined).await, clean(&held(8, "eight")));
}

pub(super) async fn what_was_lost_needs_a_generation(mut stage: Stage) {
    let [filled, dirty] = stage.keys();
    stage.make_clean(&filled, &held(5, "five")).await;
    stage.put(&dirty, "dirty").await;
    if !stage.scene.lose_everything().await {
        return;
    }
    stage.answers().await;
    expect_needs_generation(&stage, &filled).await;
    stage.raise().await;
    for key in [&filled, &dirty] {
        assert_eq!(stage.get(key).await, Got::Nothing);
    }
    assert_eq!(stage.dirty(&dirty).await.entries, 0);
    assert!(stage.claim_at(stage.shard(&dirty), NOW).await.is_empty());
}

pub(super) async fn another_server_needs_a_generation(mut stage: Stage) {
    let [filled, leased, marked, dirty, parked] = stage.keys();
    stage.make_clean(&filled, &held(5, "five")).await;
    stage.lease(&leased, 1).await;
    stage.quarantine(&marked, 2).await;
    let written = stage.put(&dirty, "dirty").await;
    stage.park(&parked, "parked").await;
    if !stage.scene.restart().await {
        return;
    }
    stage.answers().await;
    for state in stage.cache().shard_states(&stage.all_shards()).await {
        let state = state.unwrap();
        assert!(!state.is_current && !state.is_open, "{state:?}");
    }
    for key in [&filled, &dirty] {
        expect_needs_generation(&stage, key).await;
    }
    stage.raise().await;
    assert_eq!(stage.get(&filled).await, Got::Nothing);
    assert_eq!(stage.marks(&marked).await, 0);
    // What was acknowledged is there, and served, and can be flushed.
    stage.expect_dirty(&dirty, written, "dirty").await;
    assert!(matches!(stage.get(&parked).await, Got::Parked(_)));
    assert_eq!(stage.dirty(&dirty).await.entries, 2);
    let claimed = stage.claim(&dirty, NOW).await;
    assert_eq!(claimed.held.version, written);
    stage.open().await;
    assert!(!stage.fill(&leased, 1, &held(5, "five")).await);
    for key in [&filled, &leased, &marked] {
        stage.expect_absent(key).await;
    }
    // The mark is not there any more: what it brings is not taken.
    stage.make_clean(&marked, &held(5, "five")).await;
    stage.release(&marked, 2, committed(6, "six")).await;
    stage.expect_absent(&marked).await;
    assert!(stage.settle(&dirty, written, Flushed::Stored(life())).await);
    // A newer write of it may have been lost, so it is not kept.
    stage.expect_absent(&dirty).await;
}

pub(super) async fn a_generation_is_not_raised_to_an_old_one(mut stage: Stage) {
    let key = key("a");
    if !stage.scene.restart().await {
        return;
    }
    stage.answers().await;
    let shards = stage.all_shards();
    let states = stage
        .cache()
        .open_generation(&shards, stage.generation)
        .await;
    for state in states {
        let state = state.unwrap();
        assert_eq!(state.generation, stage.generation);
        assert!(!state.is_current, "{state:?}");
    }
    expect_needs_generation(&stage, &key).await;
    stage.raise().await;
}

pub(super) async fn a_server_that_lags_behind_brings_nothing_back(mut stage: Stage) {
    let [filled, marked, dirty] = stage.keys();
    stage.make_clean(&filled, &held(5, "five")).await;
    stage.make_clean(&marked, &held(5, "five")).await;
    let first = stage.put(&dirty, "first").await;
    if !stage.scene.save().await {
        return;
    }
    let last = stage.put(&dirty, "last").await;
    stage.quarantine(&marked, 1).await;
    assert!(
        stage.scene.fail_over().await,
        "what was saved can take over"
    );
    stage.answers().await;
    expect_needs_generation(&stage, &filled).await;
    stage.raise().await;
    assert_eq!(stage.get(&marked).await, Got::Nothing);
    assert_eq!(stage.get(&filled).await, Got::Nothing);
    stage.expect_dirty(&dirty, first, "first").await;
    stage.open().await;
    stage.expect_absent(&marked).await;
    // Versions that were given out before are not given out again.
    let next = stage.put(&dirty, "next").await;
    assert!(next > last, "{next} after {last}");
    assert_eq!(next.generation(), stage.generation);
}

pub(super) async fn what_cannot_be_reached_is_unavailable(stage: Stage) {
    let key = key("a");
    stage.make_clean(&key, &held(5, "five")).await;
    if !stage.scene.refuse(true).await {
        return;
    }
    expect_unavailable(&stage, &key).await;
    assert!(stage.scene.refuse(false).await);
    stage.answers().await;
    assert_eq!(stage.get(&key).await, clean(&held(5, "five")));
}

pub(super) async fn a_closed_cache_is_unavailable(stage: Stage) {
    stage.cache().close().await;
    expect_unavailable(&stage, &key("a")).await;
}

async fn expect_unavailable(stage: &Stage, key: &SharedKey) {
    let cache = stage.cache();
    let shards = stage.all_shards();
    let mut errors = errors(stage, key).await;
    errors.push(("ping", cache.ping().await.err()));
    errors.push(("facts", cache.facts().await.err()));
    errors.push(("clear", cache.clear().await.err()));
    for state in cache.shard_states(&shards).await {
        errors.push(("shard_states", state.err()));
    }
    for state in cache.open_generation(&shards, 99).await {
        errors.push(("open_generation", state.err()));
    }
    for (method, error) in errors {
        let unavailable = matches!(error, Some(SharedError::Unavailable { .. }));
        assert!(unavailable, "{method} answers {error:?}");
    }
}
