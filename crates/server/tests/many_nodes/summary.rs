//! What a run came to, for a reader and for the claims that a test makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_testkit::history::{History, Operation, Outcome};

use crate::promise::{Class, Promise};
use crate::subject::Hits;

/// Operations by how they ended.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Ends {
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) indeterminate: u64,
}

impl Ends {
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Ok(_) => self.acknowledged += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Indeterminate => self.indeterminate += 1,
        }
    }

    pub(crate) fn all(&self) -> u64 {
        self.acknowledged + self.failed + self.indeterminate
    }

    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.indeterminate += other.indeterminate;
    }
}

/// What became of the keys of a class.
#[derive(Clone, Debug)]
pub(crate) struct OfClass {
    pub(crate) promise: Promise,
    pub(crate) reads: Ends,
    /// Deletes too.
    pub(crate) writes: Ends,
    pub(crate) commits: usize,
    /// Reads that no cache answered, as far as they were counted.
    pub(crate) misses: u64,
    /// How old the oldest read was.
    pub(crate) worst_age: Duration,
}

impl OfClass {
    /// The share of reads that a cache answered.
    pub(crate) fn hit_share(&self) -> f64 {
        share(
            self.reads.acknowledged.saturating_sub(self.misses),
            self.reads.acknowledged,
        )
    }

    pub(crate) fn new(class: &Class, history: &History) -> Self {
        let mut this = Self {
            promise: class.promise,
            reads: Ends::default(),
            writes: Ends::default(),
            commits: 0,
            misses: 0,
            worst_age: Duration::ZERO,
        };
        for operation in history.operations() {
            let ends = match operation.written().is_some() || is_delete(operation) {
                true => &mut this.writes,
                false => &mut this.reads,
            };
            ends.count(&operation.outcome);
        }
        this
    }
}

fn is_delete(operation: &Operation) -> bool {
    operation.kind == tidegate_testkit::history::Kind::Delete
}

/// What a run came to, or several.
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) classes: BTreeMap<&'static str, OfClass>,
    pub(crate) additions: Ends,
    /// What was asked and answered between faults.
    pub(crate) calm: Ends,
    /// How long it took each time until every node had acknowledged a write again.
    pub(crate) recoveries: Vec<Duration>,
    pub(crate) fault_count: u64,
    /// By kind. One within another is two.
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) traps: u64,
    pub(crate) hits: Option<Hits>,
    pub(crate) violations: Vec<String>,
    /// Where more is told of violations.
    pub(crate) evidence: Vec<PathBuf>,
}

impl Summary {
    fn sum(&self, part: fn(&OfClass) -> Ends) -> Ends {
        let mut sum = Ends::default();
        self.classes.values().for_each(|class| sum.add(part(class)));
        sum
    }

    pub(crate) fn reads(&self) -> Ends {
        self.sum(|class| class.reads)
    }

    pub(crate) fn writes(&self) -> Ends {
        self.sum(|class| class.writes)
    }

    /// The share of operations between faults that were done.
    pub(crate) fn availability(&self) -> f64 {
        share(self.calm.acknowledged, self.calm.all())
    }

    /// What another run of the same world came to.
    pub(crate) fn add(&mut self, other: Self) {
        for (name, class) in other.classes {
            let Some(known) = self.classes.get_mut(name) else {
                self.classes.insert(name, class);
                continue;
            };
            known.reads.add(class.reads);
            known.writes.add(class.writes);
            known.commits += class.commits;
            known.misses += class.misses;
            known.worst_age = known.worst_age.max(class.worst_age);
        }
        self.fault_count += other.fault_count;
        for (name, count) in other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.additions.add(other.additions);
        self.calm.add(other.calm);
        self.recoveries.extend(other.recoveries);
        self.traps += other.traps;
        self.hits = match (self.hits.take(), other.hits) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.or(b),
        };
        self.violations.extend(other.violations);
        self.evidence.extend(other.evidence);
    }
}

/// As floating numbers: shares are for people, and for generous limits.
#[expect(clippy::cast_precision_loss, reason = "a share of counted things")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    part as f64 / all as f64
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            acknowledged,
            failed,
            indeterminate,
        } = self;
        write!(
            f,
            "{} ({acknowledged} acknowledged, {failed} failed, {indeterminate} indeterminate)",
            self.all()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reads, writes) = (self.reads(), self.writes());
        let all = reads.all() + writes.all() + self.additions.all();
        writeln!(f, "{all} operations")?;
        writeln!(f, "  reads {reads}")?;
        writeln!(f, "  writes {writes}")?;
        if self.additions.all() > 0 {
            writeln!(f, "  additions {}", self.additions)?;
        }
        for (name, class) in &self.classes {
            writeln!(
                f,
                "  class {name}, {}: {} reads ({:.1} % hits), {} writes, {} commits, oldest read {:.1} ms",
                class.promise,
                class.reads.acknowledged,
                100.0 * class.hit_share(),
                class.writes.acknowledged,
                class.commits,
                class.worst_age.as_secs_f64() * 1e3
            )?;
        }
        if let Some(hits) = &self.hits {
            writeln!(f, "  {hits}")?;
        }
        if self.calm.all() > 0 {
            let percent = 100.0 * self.availability();
            writeln!(f, "  between faults {percent:.1} % of {} done", self.calm)?;
        }
        let mut recoveries = self.recoveries.clone();
        recoveries.sort();
        if let Some(worst) = recoveries.last() {
            let median = recoveries[recoveries.len() / 2];
            let millis = |time: &Duration| time.as_millis();
            writeln!(
                f,
                "  all nodes wrote again {} ms after a fault (median), {} ms (worst)",
                millis(&median),
                millis(worst)
            )?;
        }
        writeln!(
            f,
            "{} faults, {} answers cut or lost",
            self.fault_count, self.traps
        )?;
        for (name, count) in &self.faults {
            writeln!(f, "  {count:4} {name}")?;
        }
        write!(f, "{} violations", self.violations.len())?;
        for violation in self.violations.iter().take(10) {
            write!(f, "\n  {violation}")?;
        }
        for place in &self.evidence {
            write!(f, "\n  more in {}", place.display())?;
        }
        Ok(())
    }
}

impl Hits {
    /// The share of reads that a cache answered.
    pub(crate) fn share(&self) -> f64 {
        let found = self.near + self.shared;
        share(found, found + self.misses())
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} % hits: {} in the shared cache, {} in a node, {} misses",
            100.0 * self.share(),
            self.shared,
            self.near,
            self.misses()
        )
    }
}
