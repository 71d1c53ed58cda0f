//! Linearizability where nothing is known of the order of writes: a search for one.
//!
//! The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with the memory of Lowe
//! (Testing for linearizability, 2017), key by key, as Porcupine does it (Athalye, 2017): take any operation that no
//! other one has to precede, carry it out on a register, go on, and take it back if that leads nowhere; a set of
//! operations carried out and a state of the register that led nowhere once are not tried again.
//!
//! A register whose writes all put different values allows short cuts, each of which keeps an order if there is one:
//! - what nobody read of a write without an answer may as well not have happened;
//! - a write took effect before the first read that returned its value ended, and that read after the write began;
//! - a read that fits the state can be carried out at once: it changes nothing;
//! - a value that somebody has still to read must not be replaced: it does not come back.
//!
//! So mostly the search does not turn back at all. At worst it is exponential in the number of operations that run
//! at the same time, and therefore it has a time limit.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tidegate_core::Key;

use super::operation::{History, Kind, Operation, Outcome, Value};
use super::violation::Violation;

/// What the search found of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Violated(Box<Violation>),
    /// The time was up before it was known.
    Unknown,
}

/// Positions remembered for one key, at most.
const REMEMBERED_MAX: usize = 4_000_000;

impl History {
    /// Looks for an order of the operations of each key that explains all answers and agrees with real time (I1);
    /// what was read must have been written (I5). An operation without an answer may have taken effect at any time
    /// after it began, or never. Each key has so much time.
    ///
    /// Exponential at worst, near linear for histories of a few clients. What it names of a violation is the
    /// operation that could not be explained where the search came farthest, and the one that was in its way there.
    #[must_use]
    pub fn search(&self, time_per_key: Duration) -> Vec<(Key, Verdict)> {
        let keys = self.by_key().into_iter();
        keys.map(|(key, operations)| (key.clone(), search(&operations, time_per_key)))
            .collect()
    }
}

/// An operation, made ready: values are numbers, and 0 is an absent key.
struct Step<'a> {
    invoked: u64,
    deadline: u64,
    effect: Effect,
    operation: &'a Operation,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Read(u32),
    Write(u32),
}

const ABSENT: u32 = 0;

fn search(operations: &[&Operation], time: Duration) -> Verdict {
    match prepare(operations) {
        Err(violation) => Verdict::Violated(Box::new(violation)),
        Ok((steps, values)) => Search::new(steps, values).run(time),
    }
}

/// The steps in the order of their beginnings, and how many values there are.
fn prepare<'a>(operations: &[&'a Operation]) -> Result<(Vec<Step<'a>>, usize), Violation> {
    let mut writers: HashMap<Value, (u32, &Operation)> = HashMap::new();
    for operation in operations {
        if let Some(value) = operation.written() {
            let number = u32::try_from(writers.len() + 1).unwrap_or(u32::MAX);
            writers.insert(value, (number, operation));
        }
    }
    let mut first_read: HashMap<Value, u64> = HashMap::new();
    let mut steps = Vec::new();
    for read in operations.iter().filter(|read| read.kind == Kind::Read) {
        let Some(answer) = read.answer() else {
            continue;
        };
        let (mut number, mut invoked) = (ABSENT, read.invoked);
        if let Some(value) = answer.value {
            let known = writers.get(&value);
            let Some((written, writer)) = known.filter(|(_, w)| w.outcome != Outcome::Failed)
            else {
                let what = "a value was read that nobody wrote";
                let failed = known.map(|(_, writer)| *writer);
                return Err(Violation::of("I5", read, what).against(failed));
            };
            if writer.invoked > read.deadline() {
                let what = "a read returned what was written only afterwards";
                return Err(Violation::of("I1", read, what).against(Some(writer)));
            }
            number = *written;
            invoked = invoked.max(writer.invoked);
            let first = first_read.entry(value).or_insert(u64::MAX);
            *first = (*first).min(read.deadline());
        }
        steps.push(Step {
            invoked,
            deadline: read.deadline(),
            effect: Effect::Read(number),
            operation: read,
        });
    }
    for operation in operations {
        let (number, read) = match operation.kind {
            Kind::Read => continue,
            Kind::Delete => (ABSENT, None),
            Kind::Write(value) => (writers[&value].0, first_read.get(&value).copied()),
        };
        let unseen = operation.kind != Kind::Delete && read.is_none();
        match operation.outcome {
            Outcome::Failed => continue,
            Outcome::Indeterminate if unseen => continue,
            _ => {}
        }
        steps.push(Step {
            invoked: operation.invoked,
            deadline: operation.deadline().min(read.unwrap_or(u64::MAX)),
            effect: Effect::Write(number),
            operation,
        });
    }
    steps.sort_by_key(|step| step.invoked);
    Ok((steps, writers.len() + 1))
}

/// Where the search stands, beside its path: what is restored when it turns back.
#[derive(Clone, Copy)]
struct Mark {
    /// The length of the path.
    done: usize,
    /// How many of it must be carried out; the others are deletes without an answer.
    needed_done: usize,
    /// The first step that must still be carried out, and the last one that was, by their numbers.
    first: usize,
    highest: usize,
    state: u32,
    last_write: Option<usize>,
}

/// A place where the search may go several ways.
struct Turn {
    mark: Mark,
    /// The ways that were not taken yet, the best one last.
    choices: Vec<usize>,
}

/// What has been carried out and the state of the register, as little of it as tells it apart: the first step that is
/// left, those behind it that are not, how many deletes that need not be, and the state.
type Place = (usize, Vec<u32>, usize, u32);

struct Search<'a> {
    /// What must be carried out, by its beginning; behind that, deletes that need not be.
    steps: Vec<Step<'a>>,
    needed: usize,
    carried_out: Vec<bool>,
    path: Vec<usize>,
    at: Mark,
    /// How many reads of each value are left.
    unread: Vec<u32>,
    seen: HashSet<Place>,
    /// How far the search came, which step could not be carried out there, and which one it contradicts.
    farthest: (usize, Option<usize>, Option<usize>),
}

impl<'a> Search<'a> {
    fn new(steps: Vec<Step<'a>>, values: usize) -> Self {
        let (mut steps, optional): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| step.deadline < u64::MAX);
        let needed = steps.len();
        steps.extend(optional);
        let mut unread = vec![0; values];
        for step in &steps {
            if let Effect::Read(value) = step.effect {
                unread[value as usize] += 1;
            }
        }
        Self {
            carried_out: vec![false; steps.len()],
            steps,
            needed,
            path: Vec::new(),
            at: Mark {
                done: 0,
                needed_done: 0,
                first: 0,
                highest: 0,
                state: ABSENT,
                last_write: None,
            },
            unread,
            seen: HashSet::new(),
            farthest: (0, None, None),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the limit is for the person who waits"
    )]
    fn run(mut self, time: Duration) -> Verdict {
        let start = Instant::now();
        let mut turns = Vec::new();
        for count in 1_u64.. {
            let choices = self.settle();
            if self.at.needed_done == self.needed {
                return Verdict::Linearizable;
            }
            let late = count.is_multiple_of(64) && start.elapsed() > time;
            if late || self.seen.len() > REMEMBERED_MAX {
                return Verdict::Unknown;
            }
            turns.push(Turn {
                mark: self.at,
                choices,
            });
            if !self.turn(&mut turns) {
                break;
            }
        }
        Verdict::Violated(Box::new(self.violation()))
    }

    /// Goes a way that was not taken yet, from as late a turn as possible; false if there is none.
    fn turn(&mut self, turns: &mut Vec<Turn>) -> bool {
        while let Some(turn) = turns.last_mut() {
            let (mark, choice) = (turn.mark, turn.choices.pop());
            self.take_back(mark);
            let Some(choice) = choice else {
                turns.pop();
                continue;
            };
            self.carry_out(choice);
            if self.seen.insert(self.place()) {
                return true;
            }
        }
        false
    }

    /// Carries out what changes nothing, and tells what may come next.
    fn settle(&mut self) -> Vec<usize> {
        loop {
            while self.at.first < self.needed && self.carried_out[self.at.first] {
                self.at.first += 1;
            }
            let (next, bound) = self.next();
            let before = self.at.done;
            for step in &next {
                if self.steps[*step].effect == Effect::Read(self.at.state) {
                    self.carry_out(*step);
                }
            }
            if self.at.done > before {
                continue;
            }
            let state = self.at.state;
            let is_lost = state != ABSENT && self.unread[state as usize] > 0;
            if self.farthest.1.is_none() || self.at.needed_done > self.farthest.0 {
                let first = next.iter().copied();
                let first = first.min_by_key(|step| self.steps[*step].deadline);
                self.farthest = (self.at.needed_done, first, self.at.last_write);
                if is_lost {
                    // It is not that step that goes wrong, but who reads afterwards what it replaces.
                    let mut left = self.at.first..self.needed;
                    let read = left.find(|step| {
                        let effect = self.steps[*step].effect;
                        !self.carried_out[*step] && effect == Effect::Read(state)
                    });
                    self.farthest = (self.at.needed_done, read, first);
                }
            }
            if is_lost {
                return Vec::new();
            }
            return self.choices(next, bound);
        }
    }

    /// The steps that must be carried out and that no other one has to precede, and when the next one must end.
    fn next(&self) -> (Vec<usize>, u64) {
        let (mut next, mut bound) = (Vec::new(), u64::MAX);
        for step in self.at.first..self.needed {
            if self.steps[step].invoked > bound {
                break;
            }
            if !self.carried_out[step] {
                bound = bound.min(self.steps[step].deadline);
                next.push(step);
            }
        }
        (next, bound)
    }

    fn choices(&self, mut next: Vec<usize>, bound: u64) -> Vec<usize> {
        next.retain(|step| matches!(self.steps[*step].effect, Effect::Write(_)));
        // Whatever must end first is tried first.
        next.sort_by_key(|step| std::cmp::Reverse(self.steps[*step].deadline));
        // Of the deletes that may have happened at any time, the one that began first is as good as any other. It is
        // tried last.
        let optional = self.needed + (self.at.done - self.at.needed_done);
        let began = |step: &Step<'_>| step.invoked <= bound;
        if self.at.state != ABSENT && self.steps.get(optional).is_some_and(began) {
            next.insert(0, optional);
        }
        next
    }

    fn carry_out(&mut self, step: usize) {
        self.carried_out[step] = true;
        self.path.push(step);
        self.at.done += 1;
        if step < self.needed {
            self.at.needed_done += 1;
            self.at.highest = self.at.highest.max(step);
        }
        match self.steps[step].effect {
            Effect::Read(value) => self.unread[value as usize] -= 1,
            Effect::Write(value) => {
                self.at.state = value;
                self.at.last_write = Some(step);
            }
        }
    }

    fn take_back(&mut self, mark: Mark) {
        for step in self.path.drain(mark.done..) {
            self.carried_out[step] = false;
            if let Effect::Read(value) = self.steps[step].effect {
                self.unread[value as usize] += 1;
            }
        }
        self.at = mark;
    }

    fn place(&self) -> Place {
        let mut first = self.at.first;
        while first < self.needed && self.carried_out[first] {
            first += 1;
        }
        let behind = (first..=self.at.highest).filter(|step| self.carried_out[*step]);
        let behind = behind.map(|step| u32::try_from(step - first).unwrap_or(u32::MAX));
        let optional = self.at.done - self.at.needed_done;
        (first, behind.collect(), optional, self.at.state)
    }

    fn violation(&self) -> Violation {
        let (_, stuck, against) = self.farthest;
        let what = "no order of the operations explains it";
        let against = against.map(|step| self.steps[step].operation);
        match stuck.map(|step| self.steps[step].operation) {
            Some(stuck) => Violation::of("I1", stuck, what).against(against),
            None => Violation::new("I1", &self.steps[0].operation.key, what),
        }
    }
}
