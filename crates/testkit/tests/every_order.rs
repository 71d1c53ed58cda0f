//! Every order of the steps of one key under write-back: two writes (the second may be a delete), two flushers
//! with two rounds each, one of which may die or lose its answer, and an eviction.
//!
//! The steps are those of the layer ([`tidegate_core::model`]), so what is explored is the code and no
//! description of it. Each row of the table switches rules off; the rows with all the rules they need show
//! nothing, the others show the violation that is known of them. A flusher that loses its answer leaves a
//! write behind that may reach the store at any later moment, or never.

#![expect(clippy::print_stdout, reason = "the figures of a run are for people")]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use tidegate_core::Mutation;
use tidegate_core::model::{Claimed, Content, OneKey};

/// What is explored, and which rules hold.
struct Variant {
    name: &'static str,
    off: &'static [Mutation],
    /// A write enters the cache and becomes dirty in one step.
    atomic: bool,
    /// A flush is guarded by its version.
    guarded: bool,
    /// The store remembers the versions of deleted keys.
    remembers: bool,
    /// The second write is a delete.
    deletes: bool,
    /// A flusher may die or lose its answer, once.
    crashes: bool,
    shows: &'static [&'static str],
}

const RIGHT: Variant = Variant {
    name: "",
    off: &[],
    atomic: true,
    guarded: true,
    remembers: true,
    deletes: false,
    crashes: true,
    shows: &[],
};

const LOST: &str = "an acknowledged write is lost";
const RESURRECTED: &str = "a deleted row is back, or its delete lost";
const STALE: &str = "a reader sees something older than what was acknowledged";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writer {
    Idle,
    /// In the cache, and not yet dirty.
    Cached(Content),
    /// Dirty, and not yet acknowledged.
    Written(Content),
    Acknowledged(Content),
}

#[derive(Clone, Debug)]
enum Flusher {
    Idle,
    Claimed(Claimed),
    Stored(Claimed),
}

#[derive(Clone)]
struct State {
    key: OneKey,
    writers: [Writer; 2],
    flushers: [Flusher; 2],
    rounds: [u8; 2],
    crashes: u8,
    evictions: u8,
    /// Left behind by a flusher that lost its answer.
    late: Option<Claimed>,
}

impl State {
    fn first(variant: &Variant) -> Self {
        Self {
            key: OneKey::new(variant.off),
            writers: [Writer::Idle; 2],
            flushers: [Flusher::Idle, Flusher::Idle],
            rounds: [2; 2],
            crashes: u8::from(variant.crashes),
            evictions: 1,
            late: None,
        }
    }

    fn fingerprint(&self) -> String {
        format!(
            "{} {:?} {:?} {:?} {} {} {:?}",
            self.key.fingerprint(),
            self.writers,
            self.flushers,
            self.rounds,
            self.crashes,
            self.evictions,
            self.late
        )
    }

    /// Everything that can happen next.
    fn next(&self, variant: &Variant) -> Vec<(String, Self)> {
        let mut next = Vec::new();
        for i in 0..2 {
            self.writer_steps(variant, i, &mut next);
            self.flusher_steps(variant, i, &mut next);
        }
        if let Some(claim) = &self.late {
            let mut state = self.clone();
            state.key.apply(claim, variant.guarded, !variant.remembers);
            state.late = None;
            next.push((format!("late write {claim:?}"), state));
            let mut state = self.clone();
            state.late = None;
            next.push(("the late write never comes".into(), state));
        }
        if self.evictions > 0 {
            let mut state = self.clone();
            state.evictions -= 1;
            if state.key.evict() {
                next.push(("evict".into(), state));
            }
        }
        next
    }

    fn writer_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(String, Self)>) {
        let mut state = self.clone();
        let step = match self.writers[i] {
            Writer::Idle => {
                let content = state.key.issue(variant.deletes && i == 1);
                state.key.cache(content);
                state.writers[i] = match variant.atomic {
                    true => {
                        state.key.make_dirty(content);
                        Writer::Written(content)
                    }
                    false => Writer::Cached(content),
                };
                format!("W{i} writes {content:?}")
            }
            Writer::Cached(content) => {
                state.key.make_dirty(content);
                state.writers[i] = Writer::Written(content);
                format!("W{i} becomes dirty")
            }
            Writer::Written(content) => {
                state.writers[i] = Writer::Acknowledged(content);
                format!("W{i} is acknowledged")
            }
            Writer::Acknowledged(_) => return,
        };
        next.push((step, state));
    }

    fn flusher_steps(&self, variant: &Variant, i: usize, next: &mut Vec<(String, Self)>) {
        match &self.flushers[i] {
            Flusher::Idle => {
                let mut state = self.clone();
                if self.rounds[i] == 0 {
                    return;
                }
                state.rounds[i] -= 1;
                if let Some(claim) = state.key.claim() {
                    let step = format!("F{i} claims {claim:?}");
                    state.flushers[i] = Flusher::Claimed(claim);
                    next.push((step, state));
                }
            }
            Flusher::Claimed(claim) => {
                let mut state = self.clone();
                state.key.apply(claim, variant.guarded, !variant.remembers);
                state.flushers[i] = Flusher::Stored(claim.clone());
                next.push((format!("F{i} stores {claim:?}"), state));
                if self.crashes > 0 {
                    next.push((format!("F{i} dies"), self.without(i, claim)));
                    let mut state = self.without(i, claim);
                    state.late = Some(claim.clone());
                    next.push((format!("F{i} loses its answer"), state));
                }
            }
            Flusher::Stored(claim) => {
                let mut state = self.clone();
                state.key.settle(claim);
                state.flushers[i] = Flusher::Idle;
                next.push((format!("F{i} settles {claim:?}"), state));
                if self.crashes > 0 {
                    next.push((format!("F{i} dies, stored"), self.without(i, claim)));
                }
            }
        }
    }

    /// A flusher ended without an answer: what it claimed is claimed again, by itself or the other.
    fn without(&self, i: usize, claim: &Claimed) -> Self {
        let mut state = self.clone();
        state.crashes -= 1;
        state.key.unclaim(claim);
        state.flushers[i] = Flusher::Idle;
        state.rounds[1 - i] = state.rounds[1 - i].max(2);
        state
    }

    /// What cannot be.
    fn violation(&self) -> Option<&'static str> {
        let acknowledged = self.writers.iter().filter_map(|writer| match writer {
            Writer::Acknowledged(content) => Some(*content),
            _ => None,
        });
        let newest = acknowledged.max_by_key(|content| content.version)?;
        let over = self
            .writers
            .iter()
            .all(|w| matches!(w, Writer::Acknowledged(_)))
            && self.flushers.iter().all(|f| matches!(f, Flusher::Idle))
            && self.late.is_none()
            && self.key.dirty().is_none();
        let row = self.key.row();
        if over && newest.deleted && row.is_some() {
            return Some(RESURRECTED);
        }
        if over && !newest.deleted && row != Some(newest.version) {
            return Some(LOST);
        }
        let stale = match self.key.read() {
            Some(seen) => seen.version < newest.version,
            None => !newest.deleted && !self.deletes_after(newest),
        };
        stale.then_some(STALE)
    }

    /// Whether a delete that is not acknowledged yet explains an absent key.
    fn deletes_after(&self, content: Content) -> bool {
        self.writers.iter().any(|writer| {
            let (Writer::Cached(other) | Writer::Written(other)) = writer else {
                return false;
            };
            other.deleted && other.version > content.version
        })
    }
}

/// What was found: the number of states, and of each violation a shortest way to it.
struct Found {
    states: usize,
    violations: BTreeMap<&'static str, Vec<String>>,
}

fn explore(variant: &Variant) -> Found {
    let first = State::first(variant);
    let mut seen = HashSet::from([first.fingerprint()]);
    let mut parents: HashMap<usize, (usize, String)> = HashMap::new();
    let mut queue = VecDeque::from([(0, first)]);
    let mut violations = BTreeMap::new();
    while let Some((number, state)) = queue.pop_front() {
        if let Some(violation) = state.violation() {
            violations
                .entry(violation)
                .or_insert_with(|| way(&parents, number));
        }
        for (step, next) in state.next(variant) {
            if seen.insert(next.fingerprint()) {
                let own = seen.len() - 1;
                parents.insert(own, (number, step));
                queue.push_back((own, next));
            }
        }
    }
    Found {
        states: seen.len(),
        violations,
    }
}

fn way(parents: &HashMap<usize, (usize, String)>, mut number: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some((parent, step)) = parents.get(&number) {
        steps.push(step.clone());
        number = *parent;
    }
    steps.reverse();
    steps
}

/// Explores a variant and holds what is found against what is known of it.
fn check(variant: &Variant) {
    let found = explore(variant);
    let shown: Vec<&str> = found.violations.keys().copied().collect();
    println!("{}: {} states, {shown:?}", variant.name, found.states);
    for (violation, way) in &found.violations {
        println!("    {violation}: {}", way.join(" -> "));
    }
    assert!(found.states > 500, "the steps do not happen");
    if variant.shows.is_empty() {
        assert!(shown.is_empty(), "{}: {shown:?}", variant.name);
    }
    for violation in variant.shows {
        assert!(
            shown.contains(violation),
            "{} shows {shown:?} and not that {violation}",
            variant.name
        );
    }
}

#[test]
fn a_write_that_is_cached_and_dirty_in_two_steps_is_lost() {
    check(&Variant {
        name: "a: cached, then dirty; clean without comparing; unguarded",
        off: &[Mutation::UndirtyWithoutComparing],
        atomic: false,
        guarded: false,
        remembers: false,
        crashes: false,
        shows: &[LOST],
        ..RIGHT
    });
}

#[test]
fn a_write_that_is_clean_once_claimed_is_lost_with_its_flusher() {
    check(&Variant {
        name: "b: clean once claimed; unguarded",
        off: &[Mutation::CleanOnceClaimed],
        guarded: false,
        remembers: false,
        shows: &[LOST],
        ..RIGHT
    });
}

#[test]
fn a_write_during_a_flush_is_lost_if_clean_is_said_without_comparing() {
    check(&Variant {
        name: "c: clean without comparing; unguarded",
        off: &[Mutation::UndirtyWithoutComparing],
        guarded: false,
        remembers: false,
        crashes: false,
        shows: &[LOST],
        ..RIGHT
    });
}

#[test]
fn an_unguarded_flush_overwrites_a_newer_one() {
    check(&Variant {
        name: "d: unguarded",
        guarded: false,
        remembers: false,
        shows: &[LOST],
        ..RIGHT
    });
}

#[test]
fn guarded_flushes_lose_nothing_without_deletes() {
    check(&Variant {
        name: "e: no deletes, and none remembered",
        remembers: false,
        ..RIGHT
    });
}

#[test]
fn a_deletion_that_is_forgotten_is_undone() {
    check(&Variant {
        name: "f: deletes that are not remembered",
        remembers: false,
        deletes: true,
        shows: &[RESURRECTED],
        ..RIGHT
    });
}

#[test]
fn all_the_rules_together_lose_and_resurrect_nothing() {
    check(&Variant {
        name: "g: all rules",
        deletes: true,
        ..RIGHT
    });
}

#[test]
fn an_eviction_of_what_is_dirty_loses_it() {
    check(&Variant {
        name: "h: what is dirty may be evicted",
        off: &[Mutation::EvictableDirtyEntry],
        deletes: true,
        shows: &[LOST, RESURRECTED, STALE],
        ..RIGHT
    });
}

#[test]
fn clean_without_comparing_loses_writes_however_well_the_store_guards() {
    check(&Variant {
        name: "i: clean without comparing, all else right",
        off: &[Mutation::UndirtyWithoutComparing],
        deletes: true,
        shows: &[LOST, RESURRECTED],
        ..RIGHT
    });
}
