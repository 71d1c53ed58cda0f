//! One simulation: lives of a gate, its clients, its crashes, and the check at the end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::memory::MemoryStore;
use tidegate_core::{Change, Class, Entry, ErrorKind, Gate, Key, Lookup, State, Strategy, Version};

use super::history::{History, Kind, Outcome, Row, Violation};
use super::journal::{FaultyJournal, JournalFaults, SimDisk};
use super::store::{FaultyStore, StoreFaults};
use super::{Random, SimClock};

/// A rule turned off, to see that the checker notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// The store applies a flush whatever version it has.
    UnguardedFlush,
    /// The store forgets at once what it deleted.
    ForgottenTombstone,
    /// The journal answers before it has synced.
    AcknowledgedBeforeSync,
    /// A rule of the layer itself.
    Layer(tidegate_core::Mutation),
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Draws everything.
    pub seed: u64,
    /// Clients at work at the same time.
    pub clients: usize,
    /// Operations of each client in each life.
    pub operations: usize,
    /// Lives of the gate; all but the last end in a crash.
    pub lives: usize,
    /// A rule turned off.
    pub mutation: Option<Mutation>,
}

impl Scenario {
    /// The usual size, with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            clients: 5,
            operations: 40,
            lives: 3,
            mutation: None,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What cannot be.
    pub violations: Vec<Violation>,
    /// Operations begun.
    pub operations: usize,
    /// Operations acknowledged.
    pub acknowledged: usize,
    /// Operations with an unknown outcome.
    pub indeterminate: usize,
    /// Operations that failed.
    pub failed: usize,
    /// Entries parked at the end.
    pub parked: usize,
    /// Journal records that were there for a replay, over all lives.
    pub replayed: usize,
    /// Everything that happened.
    pub history: History,
}

const TABLE_THROUGH: &str = "through";
const TABLE_AROUND: &str = "around";
const TABLE_BACK: &str = "back";
/// A client goes away from a call in this share of cases.
const IMPATIENCE: f64 = 0.05;

struct World {
    scenario: Scenario,
    random: Random,
    rows: MemoryStore,
    store: FaultyStore,
    disk: SimDisk,
    history: Mutex<History>,
}

impl World {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal_faults(&self) -> JournalFaults {
        JournalFaults {
            sync_max: Duration::from_millis(2),
            fail: if self.random.chance(0.2) { 0.02 } else { 0.0 },
            answers_early: self.scenario.mutation == Some(Mutation::AcknowledgedBeforeSync),
        }
    }

    fn store_faults(&self, healed: bool) -> StoreFaults {
        let delay_max = Duration::from_millis(3);
        let mut faults = StoreFaults::none(delay_max);
        if !healed {
            // Some lives see a calm store, so that not everything is overshadowed by failures.
            let calm = self.random.chance(0.3);
            let some = |share: f64| if calm { 0.0 } else { share };
            faults.stall = some(0.02);
            faults.unavailable = some(0.1);
            faults.unknown = some(0.1);
            faults.late = some(0.3);
        }
        faults.ignores_guards = self.scenario.mutation == Some(Mutation::UnguardedFlush);
        faults.forgets_deletions = self.scenario.mutation == Some(Mutation::ForgottenTombstone);
        faults
    }

    async fn open(
        &self,
        elapsed: u64,
        journal: JournalFaults,
    ) -> Result<Gate, tidegate_core::Error> {
        let short = Duration::from_millis(10);
        let mut builder = Gate::builder();
        if let Some(Mutation::Layer(rule)) = self.scenario.mutation {
            builder = builder.without(rule);
        }
        builder
            .clock(SimClock::new(elapsed, self.random.clone()))
            .store(self.store.clone())
            .journal(FaultyJournal::new(
                self.disk.clone(),
                journal,
                self.random.clone(),
            ))
            .near_bytes(1 << 20)
            .class(Class::new(TABLE_THROUGH, "through:*").ttl(Duration::from_secs(1)))
            .class(
                Class::new(TABLE_AROUND, "around:*")
                    .strategy(Strategy::WriteAround)
                    .negative_ttl(short),
            )
            .class(
                Class::new(TABLE_BACK, "back:*")
                    .strategy(Strategy::WriteBack)
                    .linger(short)
                    .batch(4),
            )
            .open()
            .await
    }
}

/// Runs a scenario and checks it.
///
/// # Panics
/// If no runtime can be built.
#[must_use]
pub fn run(scenario: Scenario) -> Report {
    let random = Random::new(scenario.seed);
    let rows = MemoryStore::new();
    let quiet = StoreFaults::none(Duration::from_millis(1));
    let store = FaultyStore::new(rows.clone(), quiet, random.clone());
    let world = Arc::new(World {
        scenario,
        random,
        rows,
        store,
        disk: SimDisk::default(),
        history: Mutex::new(History::default()),
    });
    let mut violations = Vec::new();
    let mut replayed = 0;
    let mut elapsed = 0;
    let mut parked = HashMap::new();
    for life in 1..=scenario.lives {
        let last = life == scenario.lives;
        replayed += world.disk.len();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing that can be missing");
        let lived = runtime.block_on(live(
            Arc::clone(&world),
            elapsed,
            last,
            &mut violations,
            &mut parked,
        ));
        elapsed += lived;
        // Every task dies where it stands.
        drop(runtime);
        if !last {
            world.disk.crash(&world.random);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime without I/O needs nothing that can be missing");
            runtime.block_on(world.store.crash());
        }
    }
    let history = world.history().clone();
    violations.extend(history.check_reads());
    violations.extend(history.check_rows(&stored(&world, &history), &parked));
    let count = |wanted: fn(&Outcome) -> bool| {
        history
            .events()
            .iter()
            .filter(|event| wanted(&event.outcome))
            .count()
    };
    Report {
        violations,
        operations: history.events().len(),
        acknowledged: count(|outcome| matches!(outcome, Outcome::Ok { .. })),
        indeterminate: count(|outcome| matches!(outcome, Outcome::Indeterminate)),
        failed: count(|outcome| matches!(outcome, Outcome::Failed)),
        parked: parked.len(),
        replayed,
        history,
    }
}

fn table_of(key: &Key) -> &'static str {
    match key.as_bytes().first() {
        Some(b't') => TABLE_THROUGH,
        Some(b'a') => TABLE_AROUND,
        _ => TABLE_BACK,
    }
}

fn stored(world: &World, history: &History) -> HashMap<Key, Row> {
    let row = |key: &Key| {
        let entry = world.rows.row(table_of(key), key)?;
        Some((
            key.clone(),
            Row {
                version: entry.version,
                value: entry.value,
            },
        ))
    };
    history
        .events()
        .iter()
        .filter_map(|event| row(&event.key))
        .collect()
}

/// One life; returns how long it took in milliseconds.
#[expect(clippy::disallowed_methods, reason = "time is paused here")]
async fn live(
    world: Arc<World>,
    elapsed: u64,
    last: bool,
    violations: &mut Vec<Violation>,
    parked: &mut HashMap<Key, Version>,
) -> u64 {
    let start = tokio::time::Instant::now();
    world.store.set_faults(world.store_faults(true));
    let mut faults = world.journal_faults();
    if last {
        faults.fail = 0.0;
    }
    let gate = match world.open(elapsed, faults).await {
        Ok(gate) => gate,
        Err(error) => {
            let what = format!("the gate does not open: {error}");
            violations.push(Violation {
                invariant: "I4",
                what,
            });
            return 0;
        }
    };
    world.store.set_faults(world.store_faults(false));
    let clients: Vec<_> = (0..world.scenario.clients)
        .map(|client| tokio::spawn(work(Arc::clone(&world), gate.clone(), client)))
        .collect();
    if last {
        for client in clients {
            // A client that panicked leaves its operations without an answer, which the check shows.
            drop(client.await);
        }
        settle(&world, &gate, violations, parked).await;
    } else {
        let until = Duration::from_micros(world.random.below(150_000));
        tokio::time::sleep(until).await;
    }
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Heals everything, flushes, and compares memory with the store (I7, I8); then drains.
async fn settle(
    world: &World,
    gate: &Gate,
    violations: &mut Vec<Violation>,
    parked: &mut HashMap<Key, Version>,
) {
    world.store.set_faults(world.store_faults(true));
    // Clients went away from calls that go on; let them end.
    pause(60_000).await;
    let report = gate.flush(Duration::from_secs(600)).await;
    if report.as_ref().is_ok_and(|report| report.left > 0) {
        let what = format!("a flush with a healthy store leaves {report:?}");
        violations.push(Violation {
            invariant: "I4",
            what,
        });
    }
    violations.extend(gate.audit().into_iter().map(|what| Violation {
        invariant: "I8",
        what,
    }));
    let history = world.history().clone();
    let rows = stored(world, &history);
    for key in history.events().iter().map(|event| &event.key) {
        let explanation = gate.explain(key.as_bytes());
        if explanation.state == State::Parked {
            parked.insert(key.clone(), explanation.version.unwrap_or_default());
            continue;
        }
        let row = rows.get(key);
        let agrees = match gate.lookup(key.as_bytes()) {
            Lookup::Hit(entry) => {
                row.is_some_and(|row| row.version == entry.version && row.value == entry.value)
            }
            Lookup::Negative => row.is_none(),
            Lookup::Miss => true,
        };
        if !agrees {
            let what = format!(
                "key '{key}': {:?} is cached, {row:?} is stored",
                gate.lookup(key.as_bytes())
            );
            violations.push(Violation {
                invariant: "I7",
                what,
            });
        }
    }
    match gate.drain(Duration::from_secs(600)).await {
        Ok(report) if report.left == 0 => {}
        other => {
            let what = format!("a drain with a healthy store ends in {other:?}");
            violations.push(Violation {
                invariant: "I4",
                what,
            });
        }
    }
}

async fn work(world: Arc<World>, gate: Gate, client: usize) {
    for number in 0..world.scenario.operations {
        let random = &world.random;
        pause(random.below(4)).await;
        let class = ["through", "around", "back", "back"][random.below(4) as usize];
        if random.chance(0.02) {
            gate.evict_all();
        }
        if random.chance(0.02) {
            drop(gate.flush(Duration::from_millis(random.below(50))).await);
        }
        if random.chance(0.3) {
            let key = Key::from(format!("{class}:sum{}", random.below(2)));
            add(&world, &gate, key, 1 + random.below(9) as i64).await;
            continue;
        }
        let key = Key::from(format!("{class}:{}", random.below(3)));
        match random.below(10) {
            0..4 => read(&world, &gate, key).await,
            4 => delete(&world, &gate, key).await,
            5 => {
                gate.evict(key.as_bytes());
            }
            _ => {
                let life = world.history().events().len();
                let poison = if random.chance(0.03) { "!" } else { "" };
                let value = format!("{poison}{client}.{number}.{life}");
                put(&world, &gate, key, value.into()).await;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "time is paused here")]
async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Runs a call to its end, or goes away from it half-way: the answer is then nothing.
async fn impatient<T>(world: &World, call: impl Future<Output = T>) -> Option<T> {
    if !world.random.chance(IMPATIENCE) {
        return Some(call.await);
    }
    let patience = pause(world.random.below(4));
    tokio::select! {
        biased;
        answer = call => Some(answer),
        () = patience => None,
    }
}

fn failure(error: &tidegate_core::Error) -> Outcome {
    match error.kind() {
        ErrorKind::Unknown => Outcome::Indeterminate,
        _ => Outcome::Failed,
    }
}

async fn read(world: &World, gate: &Gate, key: Key) {
    let place = world.history().begin(key.clone(), Kind::Read);
    let Some(answer) = impatient(world, gate.read(key.as_bytes())).await else {
        return;
    };
    let outcome = match answer {
        Ok(read) => Outcome::Ok {
            version: read.receipt.version,
            value: read.entry.map(|entry| entry.value),
        },
        Err(error) => failure(&error),
    };
    world.history().end(place, outcome);
}

async fn put(world: &World, gate: &Gate, key: Key, value: Bytes) {
    let place = world.history().begin(key.clone(), Kind::Put(value.clone()));
    let Some(answer) = impatient(world, gate.set(&key, value)).await else {
        return;
    };
    let outcome = match answer {
        Ok(written) => Outcome::Ok {
            version: written.receipt.version,
            value: None,
        },
        Err(error) => failure(&error),
    };
    world.history().end(place, outcome);
}

async fn delete(world: &World, gate: &Gate, key: Key) {
    let place = world.history().begin(key.clone(), Kind::Delete);
    let Some(answer) = impatient(world, gate.delete(&key)).await else {
        return;
    };
    let outcome = match answer {
        Ok(written) => Outcome::Ok {
            version: written.receipt.version,
            value: None,
        },
        Err(error) => failure(&error),
    };
    world.history().end(place, outcome);
}

async fn add(world: &World, gate: &Gate, key: Key, by: i64) {
    let place = world.history().begin(key.clone(), Kind::Add(by));
    let change = move |current: Option<&Entry>| {
        let text = current.and_then(|entry| std::str::from_utf8(&entry.value).ok());
        let number: i64 = text.and_then(|text| text.parse().ok()).unwrap_or(0);
        let value = Bytes::from((number + by).to_string());
        (
            Some(Change::Put {
                value,
                expires_at: None,
            }),
            (),
        )
    };
    let Some(answer) = impatient(world, gate.update(&key, change)).await else {
        return;
    };
    let outcome = match answer {
        Ok(((), written)) => Outcome::Ok {
            version: written.receipt.version,
            value: None,
        },
        Err(error) => failure(&error),
    };
    world.history().end(place, outcome);
}
