//! Operations, and how they are recorded while they happen.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tidegate_core::Key;

/// A value that only one write puts: who wrote it, and which of its writes it was. As text, `w3.17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value {
    /// The client.
    pub writer: u32,
    /// The number of the write, among those of the client.
    pub number: u64,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}.{}", self.writer, self.number)
    }
}

impl FromStr for Value {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix('w').and_then(|rest| rest.split_once('.'));
        let parsed = parts.and_then(|(writer, number)| {
            Some(Self {
                writer: writer.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| "not the text of a value".to_owned())
    }
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Read the key.
    Read,
    /// Put this value, which no other operation puts.
    Write(Value),
    /// Delete the key, whether it is there or not.
    Delete,
}

/// What was answered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Answer {
    /// What was read; nothing for an absent key, and for writes.
    pub value: Option<Value>,
    /// The version read or written, where the system tells it.
    pub version: Option<u64>,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done.
    Ok(Answer),
    /// Not done, for certain.
    Failed,
    /// No answer, or the answer that nobody knows: it may be done, or be done later.
    Indeterminate,
}

/// One operation of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The client, which does one thing at a time.
    pub client: u32,
    /// The node it asked.
    pub node: u32,
    /// The key.
    pub key: Key,
    /// What it asked for.
    pub kind: Kind,
    /// When it began, in nanoseconds of the run.
    pub invoked: u64,
    /// When it was answered; nothing if it never was.
    pub returned: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer, if it was done for certain.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Ok(answer) => Some(answer),
            _ => None,
        }
    }

    /// The value it puts, if it is a write.
    #[must_use]
    pub fn written(&self) -> Option<Value> {
        match self.kind {
            Kind::Write(value) => Some(value),
            _ => None,
        }
    }

    /// The end of the time in which it took effect, if it did; never for one without an answer.
    pub(super) fn deadline(&self) -> u64 {
        match self.outcome {
            Outcome::Indeterminate => u64::MAX,
            _ => self.returned.unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, node, .. } = self;
        write!(f, "client {client} at node {node} ")?;
        let version = self.answer().and_then(|answer| answer.version);
        match (self.kind, self.answer()) {
            (Kind::Read, Some(Answer { value: None, .. })) => write!(f, "read nothing")?,
            (Kind::Read, Some(Answer { value: Some(v), .. })) => write!(f, "read {v}")?,
            (Kind::Read, None) => write!(f, "asked to read")?,
            (Kind::Write(v), Some(_)) => write!(f, "wrote {v}")?,
            (Kind::Write(v), None) => write!(f, "asked to write {v}")?,
            (Kind::Delete, Some(_)) => write!(f, "deleted")?,
            (Kind::Delete, None) => write!(f, "asked to delete")?,
        }
        if let Some(version) = version {
            write!(f, ", version {version}")?;
        }
        let millis = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1e3;
        write!(f, " ({:.3}", millis(self.invoked))?;
        match (self.returned, self.outcome) {
            (Some(at), Outcome::Indeterminate) => write!(f, "..{:.3} ms, unknown)", millis(at)),
            (Some(at), Outcome::Failed) => write!(f, "..{:.3} ms, failed)", millis(at)),
            (Some(at), Outcome::Ok(_)) => write!(f, "..{:.3} ms)", millis(at)),
            (None, _) => write!(f, ".. ms, never answered)"),
        }
    }
}

/// The one clock of a run: monotonic, and the same for all clients.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    start: Instant,
}

impl RunClock {
    /// A clock that begins now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "real processes are timed by real time"
    )]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Nanoseconds since it began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What one client does, in its order. Nothing is shared while it is recorded.
#[derive(Debug)]
pub struct ClientLog {
    clock: RunClock,
    client: u32,
    writes: u64,
    operations: Vec<Operation>,
}

impl ClientLog {
    /// The log of a client; its number is the `writer` of its values.
    #[must_use]
    pub fn new(clock: RunClock, client: u32) -> Self {
        Self {
            clock,
            client,
            writes: 0,
            operations: Vec::new(),
        }
    }

    /// A value that this client has not written before.
    pub fn fresh_value(&mut self) -> Value {
        self.writes += 1;
        Value {
            writer: self.client,
            number: self.writes,
        }
    }

    /// An operation begins now. Unless it is [ended](Self::end), it was never answered.
    pub fn begin(&mut self, node: u32, key: Key, kind: Kind) {
        self.operations.push(Operation {
            client: self.client,
            node,
            key,
            kind,
            invoked: self.clock.now(),
            returned: None,
            outcome: Outcome::Indeterminate,
        });
    }

    /// The last operation that began was answered now.
    pub fn end(&mut self, outcome: Outcome) {
        let now = self.clock.now();
        if let Some(last) = self.operations.last_mut() {
            last.returned = Some(now);
            last.outcome = outcome;
        }
    }
}

/// All operations of a run.
#[derive(Clone, Default, Debug)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// The history of these clients.
    #[must_use]
    pub fn of(logs: impl IntoIterator<Item = ClientLog>) -> Self {
        logs.into_iter().flat_map(|log| log.operations).collect()
    }

    /// The operations, in no particular order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations of each key.
    pub(super) fn by_key(&self) -> BTreeMap<&Key, Vec<&Operation>> {
        let mut keys: BTreeMap<&Key, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        keys
    }
}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Self {
            operations: operations.into_iter().collect(),
        }
    }
}
