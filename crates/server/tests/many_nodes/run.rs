//! A run: clients at every node, faults from a seed, quiet at the end, and the checks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::tidegate::Key;
use tidegate_testkit::history::{
    ClientLog, EndState, History, Kind, Outcome, RunClock, Violation, WriteOrder,
};
use tidegate_testkit::sim::Random;

use super::faults::{self, Scene};
use super::subject::{Client, Subject};
use super::world::World;

/// How a run is.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How long clients are at work.
    pub(crate) time: Duration,
    pub(crate) with_faults: bool,
    pub(crate) clients: u32,
    /// What keys begin with: the classes they belong to.
    pub(crate) classes: Vec<&'static str>,
    pub(crate) keys_per_class: usize,
    /// Whether several writes may reach the database as one.
    pub(crate) is_coalesced: bool,
}

/// What is held against a history.
pub(crate) type Check = fn(&History, &WriteOrder) -> Vec<Violation>;

/// What a run came to.
#[derive(Default)]
pub(crate) struct Summary {
    figures: BTreeMap<&'static str, u64>,
    faults: BTreeMap<String, u64>,
    commits: usize,
    traps: u64,
    hits: Option<(u64, u64)>,
    pub(crate) violations: Vec<Violation>,
}

impl Summary {
    pub(crate) fn figure(&self, name: &str) -> u64 {
        self.figures.get(name).copied().unwrap_or(0)
    }

    /// How many faults there were.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// What another run of the same world came to.
    pub(crate) fn add(&mut self, other: Self) {
        for (name, figure) in other.figures {
            *self.figures.entry(name).or_default() += figure;
        }
        for (name, count) in other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.commits += other.commits;
        self.traps = other.traps;
        self.hits = match (self.hits, other.hits) {
            (Some(a), Some(b)) => Some((a.0 + b.0, a.1 + b.1)),
            (a, b) => a.or(b),
        };
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations:", self.figure("operations"))?;
        for name in ["reads", "writes", "deletes"] {
            write!(f, " {} {name},", self.figure(name))?;
        }
        for name in ["acknowledged", "failed", "indeterminate"] {
            write!(f, " {} {name},", self.figure(name))?;
        }
        write!(f, " {} commits", self.commits)?;
        if let Some((hits, misses)) = self.hits.filter(|(hits, misses)| hits + misses > 0) {
            let share = 100 * hits / (hits + misses);
            write!(f, ", {share} % hits")?;
        }
        write!(f, "\n{} faults", self.faults())?;
        for (name, count) in &self.faults {
            write!(f, ", {name} {count}")?;
        }
        write!(f, "; {} answers lost or cut", self.traps)?;
        write!(f, "\n{} violations", self.violations.len())?;
        for violation in self.violations.iter().take(10) {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

/// Runs; the world is healed and quiet afterwards. Keys are new in every run of a world: `run` is part of them.
pub(crate) fn run<S: Subject>(
    world: &mut World,
    subject: &Arc<S>,
    plan: &Plan,
    run: usize,
    check: Check,
) -> Summary {
    let start = format!("r{run}:");
    let keys: Arc<Vec<String>> = Arc::new(
        plan.classes
            .iter()
            .flat_map(|class| (0..plan.keys_per_class).map(move |i| (class, i)))
            .map(|(class, i)| format!("{class}:{start}{i}"))
            .collect(),
    );
    let clock = RunClock::start();
    let stop = Arc::new(AtomicBool::new(false));
    let random = Random::new(plan.seed.wrapping_add(run as u64));
    let clients: Vec<_> = (0..plan.clients)
        .map(|number| {
            let node = number as usize % subject.count();
            let work = work(
                subject.client(node),
                u32::try_from(node).unwrap(),
                ClientLog::new(clock, number),
                Random::new(random.number()),
                Arc::clone(&keys),
                Arc::clone(&stop),
            );
            world.runtime.spawn(work)
        })
        .collect();
    let mut summary = Summary::default();
    trouble(world, &**subject, plan, &random, &mut summary);
    stop.store(true, Ordering::Release);
    let mut logs = Vec::new();
    for client in clients {
        let (log, hits) = world.runtime.block_on(client).unwrap();
        summary.hits = summary.hits.or(Some((0, 0)));
        if let (Some(sum), Some((hit, miss))) = (&mut summary.hits, hits) {
            *sum = (sum.0 + hit, sum.1 + miss);
        }
        logs.push(log);
    }
    world.wait_until_database_is_quiet();
    summary.hits = subject.hits().or(summary.hits);

    let history = History::of(logs);
    let mut order = world.write_order(&start);
    if plan.is_coalesced {
        order = order.coalesced();
    }
    let end = end(world, &**subject, &keys);
    summary.figures = history.figures();
    summary.commits = order.len();
    summary.traps = world.ways.iter().map(traps).sum();
    summary.violations = check(&history, &order);
    summary.violations.extend(history.check_end(&order, &end));
    summary
}

fn traps(ways: &super::world::Ways) -> u64 {
    let shared = ways.shared.as_ref().map_or(0, |shared| shared.sprung());
    ways.store.sprung() + shared
}

/// Lets the time pass, with a fault every one to three seconds.
fn trouble<S: Subject>(
    world: &mut World,
    nodes: &S,
    plan: &Plan,
    random: &Random,
    summary: &mut Summary,
) {
    let start = Instant::now();
    let pause = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
    if !plan.with_faults {
        std::thread::sleep(plan.time);
        return;
    }
    let mut faults = Vec::new();
    while start.elapsed() < plan.time {
        // Each comes once before any comes again.
        if faults.is_empty() {
            faults = faults::all(world.shared.is_some());
        }
        let any = usize::try_from(random.below(faults.len() as u64)).unwrap();
        let mut fault = faults.swap_remove(any);
        *summary.faults.entry(fault.name()).or_default() += 1;
        let mut scene = Scene {
            world,
            nodes,
            random,
        };
        pause(200 + random.below(600));
        fault.begin(&mut scene);
        pause(300 + random.below(1200));
        fault.end(&mut scene);
    }
    world.heal();
    // And some time without trouble, so that what went wrong can be seen.
    pause(500);
}

/// What every row is, and what every node says of it.
fn end<S: Subject>(world: &World, subject: &S, keys: &[String]) -> Vec<EndState> {
    let mut end = world.rows(keys);
    for node in 0..subject.count() {
        let mut client = subject.client(node);
        for (key, state) in keys.iter().zip(&mut end) {
            let start = Instant::now();
            let value = loop {
                let told = world.runtime.block_on(client.read(key));
                if let Outcome::Ok(answer) = told.outcome {
                    break answer.value;
                }
                assert!(
                    start.elapsed() < Duration::from_secs(30),
                    "node {node} does not answer although all is well: {:?}",
                    told.outcome
                );
                std::thread::sleep(Duration::from_millis(20));
            };
            state.nodes.push((u32::try_from(node).unwrap(), value));
        }
    }
    end
}

/// A client at work until it is told to stop: reads mostly, some writes, a few deletes. Its log, and its hits and misses
/// if it knows them.
async fn work(
    mut client: impl Client,
    node: u32,
    mut log: ClientLog,
    random: Random,
    keys: Arc<Vec<String>>,
    stop: Arc<AtomicBool>,
) -> (ClientLog, Option<(u64, u64)>) {
    let mut hits: Option<(u64, u64)> = None;
    while !stop.load(Ordering::Acquire) {
        let key = &keys[usize::try_from(random.below(keys.len() as u64)).unwrap()];
        let kind = match random.below(100) {
            0..65 => Kind::Read,
            65..95 => Kind::Write(log.fresh_value()),
            _ => Kind::Delete,
        };
        log.begin(node, Key::from(key.as_str()), kind);
        let told = match kind {
            Kind::Read => client.read(key).await,
            Kind::Write(value) => client.write(key, value).await,
            Kind::Delete => client.delete(key).await,
        };
        log.end(told.outcome);
        if let Some(hit) = told.hit {
            let (found, missed) = hits.unwrap_or_default();
            hits = Some((found + u64::from(hit), missed + u64::from(!hit)));
        }
    }
    (log, hits)
}
