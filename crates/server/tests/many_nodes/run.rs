//! A run: clients at every node, faults from a seed, quiet at the end, and the checks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tidegate_testkit::history::{EndState, History, Outcome, RunClock};
use tidegate_testkit::sim::Random;

use crate::clients::{Habit, Work, work};
use crate::counters;
use crate::evidence::Evidence;
use crate::faults::{self, Scene, WITHIN};
use crate::promise::{Class, of_class};
use crate::subject::{Client, Subject};
use crate::summary::{Ends, OfClass, Summary};
use crate::world::World;

/// How often it is told how far a run is.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// How a run is.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How long clients are at work.
    pub(crate) time: Duration,
    pub(crate) with_faults: bool,
    /// Clients that ask for keys of all classes that have no readers of their own.
    pub(crate) clients: u32,
    pub(crate) classes: Vec<Class>,
    /// How many keys of the class `count` are added to.
    pub(crate) counters: usize,
    /// Whether several writes may reach the database as one.
    pub(crate) is_coalesced: bool,
}

/// A fault, by the clock of the run.
struct Happened {
    name: String,
    begun: u64,
    ended: u64,
}

/// Runs; the world is healed and quiet afterwards. Keys are new in every run of a world: `run` is part of them.
pub(crate) fn run<S: Subject>(
    world: &mut World,
    subject: &Arc<S>,
    plan: &Plan,
    run: usize,
) -> Summary {
    let part = format!("r{run}:");
    let names = |class: &'static str, count: usize| {
        let part = part.clone();
        (0..count).map(move |number| format!("{class}:{part}{number}"))
    };
    let keys = |classes: &mut dyn Iterator<Item = &Class>| -> Vec<String> {
        classes
            .flat_map(|class| names(class.name, class.keys))
            .collect()
    };
    let shared = Arc::new(Work::default());
    let hits_before = subject.hits();
    let traps_before = traps(world);
    let (clock, began) = (RunClock::start(), SystemTime::now());
    let random = Random::new(plan.seed.wrapping_add(run as u64));
    let counters: Vec<String> = names("count", plan.counters).collect();
    let busy = Habit {
        keys: keys(&mut plan.classes.iter().filter(|class| class.readers == 0)),
        reads: 750,
        counters: counters.clone(),
        patience: Duration::from_secs(5),
        pause: Duration::ZERO,
    };
    let mut habits = vec![busy; plan.clients as usize];
    for class in &plan.classes {
        let reader = Habit {
            keys: keys(&mut std::iter::once(class)),
            reads: 990,
            counters: Vec::new(),
            patience: Duration::from_millis(25),
            pause: Duration::from_millis(2),
        };
        let readers = class.readers as usize * subject.count();
        habits.extend(std::iter::repeat_n(reader, readers));
    }
    let clients = habits.into_iter().enumerate().map(|(number, habit)| {
        let node = number % subject.count();
        let at = (u32::try_from(node).unwrap(), u32::try_from(number).unwrap());
        let own = (Random::new(random.number()), habit);
        let work = work(subject.client(node), at, clock, own, Arc::clone(&shared));
        world.runtime.spawn(work)
    });
    let clients: Vec<_> = clients.collect();
    let happened = trouble(world, &**subject, plan, (run, &random), (clock, &shared));
    shared.stop.store(true, Ordering::Release);
    let (mut logs, mut additions) = (Vec::new(), Vec::new());
    let mut summary = Summary::default();
    for client in clients {
        let done = world.runtime.block_on(client).unwrap();
        summary.hits = match (summary.hits, done.hits) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.or(b),
        };
        logs.push(done.log);
        additions.extend(done.additions);
    }
    let (end, changes) = end(
        world,
        &**subject,
        plan,
        &keys(&mut plan.classes.iter()),
        &part,
    );
    if let (Some(before), Some(after)) = (hits_before, subject.hits()) {
        summary.hits = Some(after.since(&before));
    }
    summary.traps = traps(world) - traps_before;

    let history = History::of(logs);
    let mut found = Vec::new();
    for class in &plan.classes {
        let order = world.order(&changes, class.name);
        let order = if plan.is_coalesced {
            order.coalesced()
        } else {
            order
        };
        let history = of_class(&history, class);
        let mut of_class = OfClass::new(class, &history);
        of_class.commits = order.len();
        of_class.worst_age = history.worst_age(&order);
        let misses = summary.hits.as_ref();
        let misses = misses.and_then(|hits| hits.misses.get(class.name));
        of_class.misses = misses.copied().unwrap_or(0);
        summary.classes.insert(class.name, of_class);
        found.extend(class.promise.check(&history, &order));
        let start = format!("{}:", class.name);
        let is_of_class = |state: &&EndState| state.key.as_bytes().starts_with(start.as_bytes());
        let end: Vec<EndState> = end.iter().filter(is_of_class).cloned().collect();
        found.extend(history.check_end(&order, &end));
    }
    summary.violations = found.iter().map(ToString::to_string).collect();
    for addition in &additions {
        match &addition.told {
            Ok(_) => summary.additions.acknowledged += 1,
            Err(outcome) => summary.additions.count(outcome),
        }
    }
    let sums = sums(world, &counters);
    summary
        .violations
        .extend(counters::check(&additions, &sums));
    for fault in &happened {
        // Of two at once each counts, and that they were.
        let parts: Vec<&str> = fault.name.split(WITHIN).collect();
        let both = (parts.len() > 1).then_some("two at once");
        for part in parts.into_iter().chain(both) {
            *summary.faults.entry(part.to_owned()).or_default() += 1;
        }
        summary.fault_count += 1;
    }
    for (node, said) in subject.said().iter().enumerate() {
        let panics = said.lines().filter(|line| line.contains("panicked"));
        let panics = panics.map(|line| format!("node {node} broke down: {line}"));
        summary.violations.extend(panics);
    }
    if plan.with_faults {
        summary.calm = calm(&history, &happened);
        summary.recoveries = recoveries(&history, &happened, subject.count());
    }
    if !summary.violations.is_empty() {
        let evidence = Evidence {
            seed: plan.seed,
            run,
            began,
            violations: &found,
            history: &history,
            changes: &changes,
            faults: &list(&happened),
            additions: &additions,
            said: &subject.said(),
        };
        summary.evidence.push(evidence.keep());
    }
    world.forget_changes();
    summary
}

fn traps(world: &World) -> u64 {
    let of = |ways: &crate::world::Ways| {
        let shared = ways.shared.as_ref().map_or(0, |shared| shared.sprung());
        ways.store.sprung() + shared
    };
    world.ways.iter().map(of).sum()
}

/// Lets the time pass, with a fault every one to three seconds.
fn trouble<S: Subject>(
    world: &mut World,
    nodes: &S,
    plan: &Plan,
    (run, random): (usize, &Random),
    (clock, work): (RunClock, &Work),
) -> Vec<Happened> {
    let start = Instant::now();
    let pause = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
    let mut happened = Vec::new();
    if !plan.with_faults {
        std::thread::sleep(plan.time);
        return happened;
    }
    let mut faults = Vec::new();
    let mut told = start;
    while start.elapsed() < plan.time {
        // Each comes once before any comes again.
        if faults.is_empty() {
            faults = faults::all(world.shared.is_some(), random);
        }
        let any = usize::try_from(random.below(faults.len() as u64)).unwrap();
        let mut fault = faults.swap_remove(any);
        let mut scene = Scene {
            world,
            nodes,
            random,
        };
        pause(300 + random.below(900));
        let begun = clock.now();
        fault.begin(&mut scene);
        // Sometimes for so long that marks run out and are swept meanwhile.
        let longer = if random.chance(0.3) { 1200 } else { 0 };
        pause(300 + random.below(1000) + longer);
        fault.end(&mut scene);
        happened.push(Happened {
            name: fault.name(),
            begun,
            ended: clock.now(),
        });
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            println!(
                "  run {run}, {} s: {} operations, {} acknowledged, {} faults",
                start.elapsed().as_secs(),
                work.asked.load(Ordering::Relaxed),
                work.acknowledged.load(Ordering::Relaxed),
                happened.len()
            );
        }
    }
    world.heal();
    // And some time without trouble, so that what went wrong can be seen.
    pause(500);
    happened
}

fn list(happened: &[Happened]) -> String {
    let mut text = String::new();
    for Happened { name, begun, ended } in happened {
        let millis = |nanos: u64| Duration::from_nanos(nanos).as_millis();
        writeln!(text, "{:>8}..{:<8} {name}", millis(*begun), millis(*ended)).unwrap();
    }
    text
}

/// What was asked after one fault and answered before the next one.
fn calm(history: &History, happened: &[Happened]) -> Ends {
    let mut calm = Ends::default();
    for operation in history.operations() {
        let after = happened.partition_point(|fault| fault.ended <= operation.invoked);
        let before = after.checked_sub(1).and_then(|last| happened.get(last));
        let next = happened.get(after).map_or(u64::MAX, |next| next.begun);
        let returned = operation.returned.unwrap_or(u64::MAX);
        if before.is_some() && operation.invoked < next && returned <= next {
            calm.count(&operation.outcome);
        }
    }
    calm
}

/// For each fault how long it took from its end until every node had acknowledged a write that was asked for since;
/// nothing for those that the next fault came before.
fn recoveries(history: &History, happened: &[Happened], nodes: usize) -> Vec<Duration> {
    let mut writes: Vec<_> = history
        .operations()
        .iter()
        .filter(|operation| operation.written().is_some() && operation.answer().is_some())
        .filter_map(|operation| Some((operation.invoked, operation.returned?, operation.node)))
        .collect();
    writes.sort_unstable();
    let mut recoveries = Vec::new();
    for (i, fault) in happened.iter().enumerate() {
        let next = happened.get(i + 1).map_or(u64::MAX, |next| next.begun);
        let from = writes.partition_point(|(invoked, ..)| *invoked < fault.ended);
        let mut first: BTreeMap<u32, u64> = BTreeMap::new();
        for (_, returned, node) in &writes[from..] {
            let first = first.entry(*node).or_insert(*returned);
            *first = (*first).min(*returned);
        }
        let last = first.values().max().copied();
        if let Some(last) = last.filter(|last| first.len() == nodes && *last <= next) {
            recoveries.push(Duration::from_nanos(last - fault.ended));
        }
    }
    recoveries
}

/// What every row is, and what every node says of it, when nothing changes any more; and all changes.
fn end<S: Subject>(
    world: &World,
    subject: &S,
    plan: &Plan,
    keys: &[String],
    part: &str,
) -> (Vec<EndState>, String) {
    // Copies may be as old as that.
    let bounds = plan.classes.iter().map(|class| class.promise.bound());
    let oldest = bounds.max().unwrap_or_default();
    loop {
        world.wait_until_database_is_quiet();
        let changes = world.changes(part);
        std::thread::sleep(oldest);
        let end = end_states(world, subject, keys);
        // A node may have had something left to send.
        world.wait_until_database_is_quiet();
        if world.changes(part) == changes {
            return (end, changes);
        }
    }
}

fn end_states<S: Subject>(world: &World, subject: &S, keys: &[String]) -> Vec<EndState> {
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
                    "node {node} does not answer although all is well: {:?}\n{}",
                    told.outcome,
                    subject.said()[node]
                );
                std::thread::sleep(Duration::from_millis(20));
            };
            state.nodes.push((u32::try_from(node).unwrap(), value));
        }
    }
    end
}

/// What the rows of counters are.
fn sums(world: &World, keys: &[String]) -> BTreeMap<String, i64> {
    let row = |key: &String| {
        let value = world.sql(&format!("select value from count where key = '{key}'"));
        (key.clone(), value.parse().unwrap_or(0))
    };
    keys.iter().map(row).collect()
}
