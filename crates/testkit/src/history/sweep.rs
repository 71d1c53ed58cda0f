//! Linearizability with a known order of writes: one sweep over the beginnings and ends of operations.
//!
//! `floor` is the newest position in the order of writes that a completed operation has written or read. What
//! begins later must not answer with less, and a write must come behind it. With the order of writes fixed this is
//! necessary and sufficient for a register, together with these: what is read was written, and had begun to be
//! written before the read ended. One pass over sorted events: O(n log n).

use tidegate_core::Key;

use super::operation::{Answer, History, Kind, Operation, Outcome, Value};
use super::order::{Line, WriteOrder};
use super::violation::Violation;

impl History {
    /// Checks that for every key one order of its operations explains all answers and agrees with real time (I1),
    /// the order of its writes being the given one; and that what was read was written (I5). An operation without
    /// an answer may have taken effect at any time after it began, or never.
    ///
    /// O(n log n). What is found is a violation, and without deletes everything that is one is found.
    #[must_use]
    pub fn check_linearizable(&self, order: &WriteOrder) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (key, operations) in self.by_key() {
            Sweep::new("I1", order, key, &operations).run(&mut violations);
        }
        violations
    }

    /// The same within each session alone (I3): nothing older than what the session has read or written before.
    /// `session` tells to which an operation belongs: its client's, its node's, whatever is promised.
    ///
    /// O(n log n).
    #[must_use]
    pub fn check_sessions(
        &self,
        order: &WriteOrder,
        session: impl Fn(&Operation) -> u64,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (key, mut operations) in self.by_key() {
            let all = operations.clone();
            operations.sort_by_key(|operation| session(operation));
            for one in operations.chunk_by(|a, b| session(a) == session(b)) {
                let mut sweep = Sweep::new("I3", order, key, one);
                // A value that another session writes has begun when it has, too.
                sweep.begun = sweep.line.begun(&all);
                sweep.run(&mut violations);
            }
        }
        violations
    }
}

#[derive(Clone, Copy)]
enum Step {
    Begin(usize),
    End(usize),
}

pub(super) struct Sweep<'a> {
    invariant: &'static str,
    operations: &'a [&'a Operation],
    pub(super) line: Line,
    /// When the writes up to each position had begun.
    pub(super) begun: Vec<u64>,
    coalesced: bool,
    /// The floor, and which operation raised it.
    floor: (usize, Option<usize>),
    /// The floor at the beginning of each operation.
    floors: Vec<(usize, Option<usize>)>,
    /// The place of each operation in the order of writes, as far as it is known.
    pub(super) positions: Vec<Option<usize>>,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        invariant: &'static str,
        order: &WriteOrder,
        key: &Key,
        operations: &'a [&'a Operation],
    ) -> Self {
        let line = order.line(key);
        Self {
            invariant,
            operations,
            begun: line.begun(operations),
            line,
            coalesced: order.is_coalesced(),
            floor: (0, None),
            floors: vec![(0, None); operations.len()],
            positions: vec![None; operations.len()],
        }
    }

    pub(super) fn run(&mut self, violations: &mut Vec<Violation>) {
        let mut steps = Vec::with_capacity(self.operations.len() * 2);
        for (i, operation) in self.operations.iter().enumerate() {
            steps.push((operation.invoked, false, Step::Begin(i)));
            if let (Some(returned), Outcome::Ok(_)) = (operation.returned, operation.outcome) {
                steps.push((returned, true, Step::End(i)));
            }
        }
        // What ends and what begins at the same moment is taken as concurrent.
        steps.sort_unstable_by_key(|(time, end, _)| (*time, *end));
        for (_, _, step) in steps {
            let found = match step {
                Step::Begin(i) => self.begin(i),
                Step::End(i) => self.end(i),
            };
            violations.extend(found);
        }
    }

    /// A write that is in the order, acknowledged or not, comes behind everything that was complete.
    fn begin(&mut self, i: usize) -> Option<Violation> {
        let operation = self.operations[i];
        self.floors[i] = self.floor;
        let position = self.line.position(operation.written()?)?;
        self.positions[i] = Some(position);
        let (floor, against) = self.floor;
        (position <= floor).then(|| {
            let what = "a write took effect before what was complete when it began";
            Violation::of(self.invariant, operation, what).against(self.operation(against))
        })
    }

    fn end(&mut self, i: usize) -> Option<Violation> {
        let operation = self.operations[i];
        let answer = operation.answer()?;
        let position = match operation.kind {
            Kind::Read => self.read(i, answer),
            Kind::Write(_) => self.written(i),
            Kind::Delete => self.deleted(i, answer),
        };
        match position {
            Ok(position) => {
                self.positions[i] = Some(position);
                if position > self.floor.0 {
                    self.floor = (position, Some(i));
                }
                None
            }
            Err(violation) => Some(violation),
        }
    }

    fn read(&self, i: usize, answer: &Answer) -> Result<usize, Violation> {
        let operation = self.operations[i];
        let Some(value) = answer.value else {
            return self.absent(i, "nothing was read although the key was there");
        };
        let Some(position) = self.line.position(value) else {
            let what = "a value was read that was never committed";
            return Err(Violation::of("I5", operation, what).against(self.writer(value)));
        };
        let (floor, against) = self.floors[i];
        if position < floor {
            let what = "a read returned what had been replaced before it began";
            let violation = Violation::of(self.invariant, operation, what);
            return Err(violation.against(self.operation(against)));
        }
        if self.begun[position] > operation.deadline() {
            let what = "a read returned what was written only afterwards";
            let violation = Violation::of(self.invariant, operation, what);
            return Err(violation.against(self.writer(value)));
        }
        let told = answer.version;
        if told.is_some_and(|version| self.line.position_of_version(version) != Some(position)) {
            let what = "a read returned a value under the version of another";
            let violation = Violation::of(self.invariant, operation, what);
            return Err(violation.against(self.writer(value)));
        }
        Ok(position)
    }

    fn written(&self, i: usize) -> Result<usize, Violation> {
        if let Some(position) = self.positions[i] {
            return Ok(position);
        }
        let operation = self.operations[i];
        let (floor, against) = self.floors[i];
        let meets = |other: &&Operation| {
            let is_delete = other.kind == Kind::Delete && other.outcome != Outcome::Failed;
            is_delete
                && other.invoked <= operation.deadline()
                && other.deadline() >= operation.invoked
        };
        if self.coalesced {
            // Absorbed by a delete of what was not there: that leaves no trace.
            let is_absent = self.line.states[floor].is_none();
            if is_absent && self.operations.iter().copied().any(|other| meets(&other)) {
                return Ok(floor);
            }
            if let Some(next) = self.absorbing(i) {
                return Ok(next);
            }
        }
        let what = "an acknowledged write was never committed";
        Err(Violation::of("I4", operation, what).against(self.operation(against)))
    }

    /// The change right behind the floor, if it can have absorbed this one: it must have begun before this one was
    /// acknowledged.
    fn absorbing(&self, i: usize) -> Option<usize> {
        let next = self.floors[i].0 + 1;
        let begun = self.begun.get(next)?;
        (*begun <= self.operations[i].deadline()).then_some(next)
    }

    fn deleted(&self, i: usize, answer: &Answer) -> Result<usize, Violation> {
        let told = answer.version;
        let known = told.and_then(|version| self.line.position_of_version(version));
        let (floor, against) = self.floors[i];
        match known.filter(|position| self.line.states[*position].is_none()) {
            Some(position) if position < floor => {
                let what = "a delete took effect before what was complete when it began";
                let violation = Violation::of(self.invariant, self.operations[i], what);
                Err(violation.against(self.operation(against)))
            }
            Some(position) => Ok(position),
            None if self.coalesced && self.line.states[floor].is_some() => {
                // It went, or it was put anew in the same moment.
                let what = "the key was not touched while it was deleted";
                let violation = || Violation::of(self.invariant, self.operations[i], what);
                let absorbing = self.absorbing(i);
                absorbing.ok_or_else(|| violation().against(self.operation(against)))
            }
            None => self.absent(i, "the key was there all the time while it was deleted"),
        }
    }

    /// The first moment that explains that the key was absent: any later one would only forbid more.
    fn absent(&self, i: usize, what: &str) -> Result<usize, Violation> {
        let operation = self.operations[i];
        let (floor, against) = self.floors[i];
        let found = self.line.absent_from(floor);
        found
            .filter(|position| self.begun[*position] <= operation.deadline())
            .ok_or_else(|| {
                let violation = Violation::of(self.invariant, operation, what);
                violation.against(self.operation(against))
            })
    }

    /// Who wrote a value. Looked for only to be named.
    fn writer(&self, value: Value) -> Option<&'a Operation> {
        let mut operations = self.operations.iter().copied();
        operations.find(|operation| operation.written() == Some(value))
    }

    fn operation(&self, i: Option<usize>) -> Option<&'a Operation> {
        i.map(|i| self.operations[i])
    }
}
