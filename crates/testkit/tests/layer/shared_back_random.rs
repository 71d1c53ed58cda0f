//! Random operations of three nodes against a plain model, with a store that fails, loses answers and commits late,
//! nodes that die, and a cache that restarts or loses everything. The seed of a failure is in its message.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_core::{Durability, Gate};
use tidegate_testkit::sim::{Random, StoreFaults};

use crate::shared_back::back;
use crate::shared_nodes::Nodes;
use crate::world::{ms, pass, text};

const NODES: usize = 3;
const KEYS: u64 = 5;
const STEPS: u64 = 160;

/// What a key may hold: what was acknowledged last, and what may have been written since.
#[derive(Default)]
struct Model {
    acknowledged: Option<String>,
    unknown: Vec<Option<String>>,
}

impl Model {
    fn allows(&self, value: &Option<String>) -> bool {
        self.acknowledged == *value || self.unknown.contains(value)
    }
}

struct Run {
    nodes: Nodes,
    gates: Vec<Gate>,
    durability: Durability,
    model: HashMap<String, Model>,
    random: Random,
    seed: u64,
}

impl Run {
    async fn new(seed: u64, durability: Durability) -> Self {
        let nodes = Nodes::of_seed(NODES, seed);
        let gates = nodes.gates(&back(durability)).await;
        Self {
            nodes,
            gates,
            durability,
            model: HashMap::new(),
            random: Random::new(seed ^ 0x5eed),
            seed,
        }
    }

    fn below(&self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn gate(&self) -> Gate {
        let node = usize::try_from(self.below(NODES as u64)).unwrap();
        self.gates[node].clone()
    }

    async fn step(&mut self, step: u64) {
        let (gate, key) = (self.gate(), format!("b:{}", self.below(KEYS)));
        match self.below(20) {
            0..=5 => self.write(&gate, key, Some(format!("{step}"))).await,
            6..=7 => self.write(&gate, key, None).await,
            8..=10 => self.add(&gate, key).await,
            11..=14 => self.read(&gate, &key).await,
            15 => pass(ms(self.below(400))).await,
            16 => self.kill().await,
            17 => self.shake_cache().await,
            _ => self.shake_store(),
        }
    }

    async fn write(&mut self, gate: &Gate, key: String, value: Option<String>) {
        let written = match &value {
            Some(value) => gate.set(&key, value.clone()).await,
            None => gate.delete(&key).await,
        };
        self.wrote(key, value, written.map(drop));
    }

    fn wrote(&mut self, key: String, value: Option<String>, written: tidegate_core::Result<()>) {
        let model = self.model.entry(key).or_default();
        match written {
            Ok(()) => {
                model.acknowledged = value;
                model.unknown.clear();
            }
            Err(error) if error.kind() == tidegate_core::ErrorKind::Unknown => {
                model.unknown.push(value);
            }
            Err(_) => {}
        }
    }

    async fn add(&mut self, gate: &Gate, key: String) {
        match gate.add(&key, 1).await {
            Ok((sum, _)) => {
                let model = self.model.entry(key.clone()).or_default();
                let before = (sum != 1).then(|| (sum - 1).to_string());
                let from_zero = sum == 1 && model.allows(&Some("0".to_owned()));
                let fits = model.allows(&before) || from_zero;
                assert!(fits, "seed {}: {key} came to {sum}", self.seed);
                self.wrote(key, Some(sum.to_string()), Ok(()));
            }
            Err(error) if error.kind() == tidegate_core::ErrorKind::Unknown => {
                let model = self.model.entry(key).or_default();
                let mut may = vec![model.acknowledged.clone()];
                may.extend(model.unknown.clone());
                for value in may {
                    let number = value.map_or(0, |value| value.parse::<i64>().unwrap());
                    model.unknown.push(Some((number + 1).to_string()));
                }
            }
            Err(_) => {}
        }
    }

    async fn read(&mut self, gate: &Gate, key: &str) {
        let Ok(read) = gate.get(key).await else {
            return;
        };
        let value = read.map(|value| String::from_utf8(value.to_vec()).unwrap());
        let model = self.model.entry(key.to_owned()).or_default();
        let (acknowledged, unknown) = (&model.acknowledged, &model.unknown);
        assert!(
            model.allows(&value),
            "seed {}: {key} is {value:?}, and {acknowledged:?} was acknowledged last, then perhaps {unknown:?}",
            self.seed
        );
    }

    /// A node dies and is started again: the end of what it had not synced is gone.
    async fn kill(&mut self) {
        let node = usize::try_from(self.below(NODES as u64)).unwrap();
        self.nodes.store.set_faults(StoreFaults::none(ms(1)));
        drop(self.gates.remove(node));
        pass(ms(5)).await;
        self.nodes.disks[node].crash(&self.random);
        let gate = self.nodes.gate(node, back(self.durability)).await;
        self.gates.insert(node, gate);
    }

    async fn shake_cache(&mut self) {
        self.nodes.store.set_faults(StoreFaults::none(ms(1)));
        match self.below(3) {
            0 if self.durability != Durability::Shared => self.nodes.cache.lose_everything(),
            1 if self.durability != Durability::Shared => self.nodes.cache.restart(None),
            0 | 1 => {
                let all = self.nodes.cache.snapshot();
                self.nodes.cache.restart(Some(all));
            }
            _ => {
                self.nodes.cache.refuse(true);
                let (gate, key) = (self.gate(), format!("b:{}", self.below(KEYS)));
                self.write(&gate, key, Some("away".len().to_string())).await;
                self.nodes.cache.refuse(false);
                pass(Duration::from_secs(4)).await;
            }
        }
        pass(ms(200)).await;
        self.nodes.opened().await;
    }

    fn shake_store(&self) {
        let mut faults = StoreFaults::none(ms(1 + self.below(60)));
        match self.below(5) {
            0 => faults.unavailable = 0.5,
            1 => faults.unknown = 0.4,
            2 => {
                faults.unknown = 0.4;
                faults.late = 1.0;
            }
            3 => faults.refused = 0.0,
            _ => faults.stall = 0.2,
        }
        self.nodes.store.set_faults(faults);
    }

    /// All is well again: nothing acknowledged is lost, and all agree.
    async fn end(mut self) {
        self.nodes.store.set_faults(StoreFaults::none(ms(1)));
        pass(Duration::from_secs(15)).await;
        let report = self.gates[0].flush(Duration::from_secs(30)).await.unwrap();
        assert!(report.is_complete(), "seed {}: {report:?}", self.seed);
        for key in (0..KEYS).map(|key| format!("b:{key}")) {
            let row = self.nodes.value(&key);
            for gate in self.gates.clone() {
                self.read(&gate, &key).await;
                assert_eq!(text(&gate, &key).await, row, "seed {}: {key}", self.seed);
            }
            let model = self.model.entry(key.clone()).or_default();
            assert!(
                model.allows(&row),
                "seed {}: the row of {key} is {row:?}",
                self.seed
            );
        }
        assert_eq!(self.nodes.dirty().await, (0, 0), "seed {}", self.seed);
        for gate in &self.gates {
            let drained = gate.drain(Duration::from_secs(10)).await.unwrap();
            assert!(drained.is_complete(), "seed {}", self.seed);
        }
    }
}

fn run(durability: Durability, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut run = Run::new(seed, durability).await;
            for step in 0..STEPS {
                run.step(step).await;
            }
            run.end().await;
        });
    }
}

#[test]
fn nothing_acknowledged_is_lost_while_the_cache_keeps_what_it_has() {
    run(Durability::Shared, 0..20);
}

#[test]
fn nothing_acknowledged_is_lost_where_the_cache_loses_all_and_the_journals_live() {
    run(Durability::Both, 200..220);
    run(Durability::Journal, 1160..1170);
}
