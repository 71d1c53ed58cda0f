//! The commands, and doing one.

use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{
    Ask, Each, Fill, Flushed, Mark, Put, PutOutcome, Release, Replay, Shard, SharedError,
    SharedKey, Timestamp, Token,
};

use crate::conformance::shared_cache::Scene;

/// A command, the same for both.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Get(Vec<SharedKey>),
    Ask(Vec<Ask>, Timestamp),
    Fill(Vec<Fill>),
    Mark(Vec<Mark>),
    Release(Vec<Release>),
    Sweep(Vec<(SharedKey, Token)>),
    Invalidate(Vec<(SharedKey, Version)>),
    Evict(Vec<SharedKey>),
    Clear,
    Put(Vec<Put>),
    Claim(Shard, usize, Timestamp, Duration),
    Settle(Vec<(SharedKey, Version, Flushed)>),
    Unpark(Vec<(SharedKey, Version)>, Timestamp),
    Replay(Vec<Replay>),
    OpenGeneration(Vec<Shard>, u64),
    Open(Vec<Shard>, u64),
    LoseEverything,
    Restart,
    Save,
    FailOver,
}

/// An error as two implementations can share it.
pub(super) fn kind(error: SharedError) -> String {
    match error {
        SharedError::Unavailable { .. } => "unavailable".into(),
        other => format!("{other:?}"),
    }
}

pub(super) fn each<T>(answers: Each<T>) -> Vec<Result<T, String>> {
    answers
        .into_iter()
        .map(|answer| answer.map_err(kind))
        .collect()
}

/// Does a command, and tells the answer and the versions in it.
pub(super) async fn act(
    scene: &dyn Scene,
    command: &Command,
) -> (String, Vec<(SharedKey, Version)>) {
    let cache = scene.cache();
    let mut versions = Vec::new();
    let answer = match command.clone() {
        Command::Get(keys) => format!("{:?}", each(cache.get(&keys).await)),
        Command::Ask(asks, now) => format!("{:?}", each(cache.ask(&asks, now).await)),
        Command::Fill(fills) => {
            versions.extend(
                fills
                    .iter()
                    .map(|fill| (fill.key.clone(), fill.held.version)),
            );
            format!("{:?}", each(cache.fill(&fills).await))
        }
        Command::Mark(marks) => format!("{:?}", each(cache.mark(&marks).await)),
        Command::Release(releases) => {
            let ended = |release: &Release| Some((release.key.clone(), release.ended.version()?));
            versions.extend(releases.iter().filter_map(ended));
            format!("{:?}", each(cache.release(&releases).await))
        }
        Command::Sweep(marks) => format!("{:?}", each(cache.sweep(&marks).await)),
        Command::Invalidate(changed) => format!("{:?}", each(cache.invalidate(&changed).await)),
        Command::Evict(keys) => format!("{:?}", each(cache.evict(&keys).await)),
        Command::Clear => format!("{:?}", cache.clear().await.map_err(kind)),
        Command::Put(puts) => {
            let answers = cache.put(&puts).await;
            for (put, answer) in puts.iter().zip(&answers) {
                if let Ok(PutOutcome::Dirty { version, .. }) = answer {
                    versions.push((put.key.clone(), *version));
                }
            }
            format!("{:?}", each(answers))
        }
        Command::Claim(shard, limit, now, claim_for) => {
            let claimed = cache.claim(shard, limit, now, claim_for).await;
            for claimed in claimed.iter().flatten() {
                versions.push((claimed.key.clone(), claimed.held.version));
            }
            format!("{:?}", claimed.map_err(kind))
        }
        Command::Settle(flushed) => format!("{:?}", each(cache.settle(&flushed).await)),
        Command::Unpark(parked, now) => format!("{:?}", each(cache.unpark(&parked, now).await)),
        Command::Replay(replays) => {
            versions.extend(
                replays
                    .iter()
                    .map(|replay| (replay.key.clone(), replay.held.version)),
            );
            format!("{:?}", each(cache.replay(&replays).await))
        }
        Command::OpenGeneration(shards, generation) => {
            let states = cache.open_generation(&shards, generation).await;
            format!("{:?}", each(states))
        }
        Command::Open(shards, generation) => {
            format!("{:?}", each(cache.open(&shards, generation).await))
        }
        Command::LoseEverything => scene.lose_everything().await.to_string(),
        Command::Restart => scene.restart().await.to_string(),
        Command::Save => scene.save().await.to_string(),
        Command::FailOver => scene.fail_over().await.to_string(),
    };
    if let Command::LoseEverything | Command::Restart | Command::FailOver = command {
        answers(scene).await;
    }
    (answer, versions)
}

/// Waits until a server that became another answers.
async fn answers(scene: &dyn Scene) {
    for _ in 0..500 {
        if scene.cache().ping().await.is_ok() {
            return;
        }
        scene.clock().sleep(Duration::from_millis(20)).await;
    }
    panic!("the cache does not answer any more");
}
