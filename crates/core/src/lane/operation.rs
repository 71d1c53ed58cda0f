//! What a caller wants done to a key, and folding several such wishes into one write.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::delta::sum;
use crate::entry::{Change, Entry};
use crate::error::{Error, Result};
use crate::port::{Guard, Timestamp};
use crate::receipt::Written;
use crate::version::Version;

/// Where the answer to a write goes.
pub(crate) type WriteReply = oneshot::Sender<Result<Written>>;

/// One wish of one caller.
pub(crate) enum Operation {
    /// Whatever is there, the key holds this.
    Put {
        value: Bytes,
        expires_at: Option<Timestamp>,
        reply: WriteReply,
    },
    /// Whatever is there, the key is absent.
    Delete { reply: WriteReply },
    /// What is there decides.
    Update(Box<dyn Update>),
}

/// A change that depends on the present state.
pub(crate) trait Update: Send {
    /// What to make of the key; nothing leaves it as it is. Called again if the state turns out to have
    /// been another.
    fn evaluate(&mut self, current: Option<&Entry>) -> Option<Change>;

    /// Tells the caller.
    fn answer(self: Box<Self>, answer: Result<Written>);
}

impl Operation {
    /// Tells the caller; one that went away is no concern.
    pub(crate) fn answer(self, answer: Result<Written>) {
        match self {
            Self::Put { reply, .. } | Self::Delete { reply } => drop(reply.send(answer)),
            Self::Update(update) => update.answer(answer),
        }
    }

    /// Bytes the operation brings.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } | Self::Update(_) => 0,
        }
    }
}

/// What is known of a key before a fold.
#[derive(Clone, Debug)]
pub(crate) enum Present {
    /// Nothing was looked up.
    Unknown,
    /// This entry, or none.
    Known(Option<Entry>),
}

/// Several operations of one key as one write.
pub(crate) struct Folded {
    /// What to write; nothing if every operation left the key as it was.
    pub(crate) change: Option<Change>,
    /// What the change adds, if every operation that changed anything was an addition.
    pub(crate) added: Option<i64>,
    /// When the write applies.
    pub(crate) guard: Guard,
    /// For each operation, whether the key was present before it. Nothing: as the store says of the write.
    pub(crate) existed: Vec<Option<bool>>,
}

/// True if the operations cannot be folded without knowing the present state.
pub(crate) fn needs_present(operations: &[Operation]) -> bool {
    matches!(operations.first(), Some(Operation::Update(_)))
}

/// Applies `operations` in their order to what is `present`. Operations whose function panics are taken out
/// and answered; the others go on without them.
pub(crate) fn fold(operations: &mut Vec<Operation>, present: &Present, now: Timestamp) -> Folded {
    let conditional = needs_present(operations);
    let mut state = present.clone();
    let mut change = None;
    let mut added = Some(0_i64);
    let mut existed = Vec::with_capacity(operations.len());
    let mut at = 0;
    while at < operations.len() {
        let before = match &state {
            Present::Unknown => None,
            Present::Known(entry) => Some(entry.is_some()),
        };
        let next = match &mut operations[at] {
            Operation::Put {
                value, expires_at, ..
            } => Some(Change::Put {
                value: value.clone(),
                expires_at: *expires_at,
            }),
            Operation::Delete { .. } => Some(Change::Delete),
            Operation::Update(update) => {
                let current = match &state {
                    Present::Known(entry) => entry.as_ref(),
                    Present::Unknown => None,
                };
                match catch_unwind(AssertUnwindSafe(|| update.evaluate(current))) {
                    Ok(next) => next,
                    Err(_) => {
                        let operation = operations.remove(at);
                        operation.answer(Err(Error::invalid("the update function panicked")));
                        continue;
                    }
                }
            }
        };
        existed.push(before);
        at += 1;
        if let Some(next) = next {
            let by = match &next {
                Change::Add { by } => Some(*by),
                Change::Put { .. } | Change::Delete => None,
            };
            // Nothing where it cannot be added, which whoever asked for it has looked at.
            let Some(next) = resolve(next, &state) else {
                continue;
            };
            added = added.zip(by).and_then(|(sum, by)| sum.checked_add(by));
            state = Present::Known(next.to_entry(Version::NONE).filter(|e| !e.is_expired(now)));
            change = Some(next);
        }
    }
    let guard = match present {
        Present::Known(entry) if conditional => {
            Guard::Unchanged(entry.as_ref().map(|entry| entry.version))
        }
        _ => Guard::Always,
    };
    Folded {
        added: added.filter(|_| change.is_some()),
        change,
        guard,
        existed,
    }
}

/// An addition as the put that it comes to; any other change as it is.
fn resolve(change: Change, state: &Present) -> Option<Change> {
    let Change::Add { by } = change else {
        return Some(change);
    };
    let Present::Known(entry) = state else {
        return None;
    };
    let value = sum(entry.as_ref().map(|entry| &*entry.value), by).ok()?;
    Some(Change::Put {
        value: value.to_string().into(),
        expires_at: entry.as_ref().and_then(|entry| entry.expires_at),
    })
}
