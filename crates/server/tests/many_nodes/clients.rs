//! Clients at work until they are told to stop, and what they record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::tidegate::Key;
use tidegate_testkit::history::{ClientLog, Kind, Outcome, RunClock};
use tidegate_testkit::sim::Random;

use crate::counters::{Addition, AdditionLog};
use crate::subject::{Client, Hits, Told};

/// What all clients of a run have in common.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) stop: AtomicBool,
    pub(crate) asked: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
}

/// What one client has to show.
pub(crate) struct Done {
    pub(crate) log: ClientLog,
    /// Hits and misses of its cache, if it knows them.
    pub(crate) hits: Option<Hits>,
    pub(crate) additions: AdditionLog,
}

/// What one client does, all else being chance.
#[derive(Clone)]
pub(crate) struct Habit {
    pub(crate) keys: Vec<String>,
    /// Of a thousand operations, so many read.
    pub(crate) reads: u64,
    /// Keys that are added to.
    pub(crate) counters: Vec<String>,
    /// It gives a read up that takes longer.
    pub(crate) patience: Duration,
    /// Between two operations.
    pub(crate) pause: Duration,
}

fn any<'a>(keys: &'a [String], random: &Random) -> &'a str {
    &keys[usize::try_from(random.below(keys.len() as u64)).unwrap()]
}

/// Reads mostly, writes, a few deletes; and additions, if there are counters.
pub(crate) async fn work(
    mut client: impl Client,
    (node, number): (u32, u32),
    clock: RunClock,
    (random, habit): (Random, Habit),
    work: Arc<Work>,
) -> Done {
    let mut done = Done {
        log: ClientLog::new(clock, number),
        hits: None,
        additions: Vec::new(),
    };
    while !work.stop.load(Ordering::Acquire) {
        work.asked.fetch_add(1, Ordering::Relaxed);
        let outcome = if !habit.counters.is_empty() && random.chance(0.08) {
            let key = any(&habit.counters, &random);
            let invoked = clock.now();
            let told = client.add(key).await;
            done.additions.push(Addition {
                key: key.to_owned(),
                node,
                invoked,
                returned: clock.now(),
                told,
            });
            told.err()
        } else {
            step(&mut client, node, &habit, &random, &mut done).await
        };
        if !habit.pause.is_zero() {
            tokio::time::sleep(habit.pause).await;
        }
        if outcome.is_none() {
            work.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    done
}

/// One operation. How it ended, if not well.
async fn step(
    client: &mut impl Client,
    node: u32,
    habit: &Habit,
    random: &Random,
    done: &mut Done,
) -> Option<Outcome> {
    let key = any(&habit.keys, random);
    let kind = if random.below(1000) < habit.reads {
        Kind::Read
    } else if random.chance(0.15) {
        Kind::Delete
    } else {
        Kind::Write(done.log.fresh_value())
    };
    done.log.begin(node, Key::from(key), kind);
    let told = match kind {
        Kind::Read => {
            let read = tokio::time::timeout(habit.patience, client.read(key)).await;
            read.unwrap_or(Told::of(Outcome::Indeterminate))
        }
        Kind::Write(value) => client.write(key, value).await,
        Kind::Delete => client.delete(key).await,
    };
    done.log.end(told.outcome);
    if let Some(hit) = told.hit {
        let hits = done.hits.get_or_insert_default();
        if hit {
            hits.shared += 1;
        } else {
            let class = key.split(':').next().unwrap_or(key);
            *hits.misses.entry(class.to_owned()).or_default() += 1;
        }
    }
    Some(told.outcome).filter(|outcome| !matches!(outcome, Outcome::Ok(_)))
}
