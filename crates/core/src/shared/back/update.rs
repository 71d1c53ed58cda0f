//! Writes that depend on what their key holds: shown the present state, put over just that, and tried again when
//! somebody else was faster.
//!
//! Within a node the updates of a key take turns, so that only nodes contend for it.

use super::kept::value_of;
use super::write::{Writer, recovering};
use crate::entry::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::{Operation, Present, fold};
use crate::layer::Layer;
use crate::port::{Ask, Asked, Expected, Fill, Got, Held, SharedError, Token};
use crate::read::load_apart;
use crate::receipt::{Durability, Receipt, Source, Written};
use crate::shared::life::{entry, held};
use crate::strategy::write_back::check;
use crate::version::Version;

/// How often an update is tried when others keep writing its key.
const ATTEMPTS_MAX: u32 = 64;

/// What a key holds, as the cache has it or has got it for this.
struct Shown {
    held: Held,
    source: Source,
}

/// Does an operation that is to be shown what its key holds, and answers it.
pub(super) async fn update(writer: &mut Writer<'_>, operation: Operation) {
    let _turn = writer.back.turn(writer.key).await;
    let mut operations = vec![operation];
    let answer = attempt(writer, &mut operations).await;
    for operation in operations {
        operation.answer(answer.clone());
    }
}

async fn attempt(writer: &mut Writer<'_>, operations: &mut Vec<Operation>) -> Result<Written> {
    let layer = writer.layer;
    for _ in 0..ATTEMPTS_MAX {
        let shown = present(writer).await?;
        let now = layer.clock.now();
        let entry = entry(shown.held.clone(), now);
        let existed = entry.is_some();
        let deletes = matches!(operations.first(), Some(Operation::Delete { .. }));
        let folded = fold(operations, &Present::Known(entry), now);
        let change = match folded.change {
            // There is nothing to delete.
            Some(Change::Delete) if deletes && !existed => None,
            change => change,
        };
        let Some(change) = change else {
            return Ok(left_as_is(layer, writer.class, &shown, existed));
        };
        check(layer, &writer.key.key, writer.class, &change)?;
        let value = value_of(&change);
        let expected = Expected::Version(shown.held.version);
        if let Some(written) = writer.write(value, expected).await? {
            return Ok(Written { existed, ..written });
        }
        writer.wait(contended).await?;
        writer.tire();
    }
    Err(contended())
}

fn contended() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        "others wrote the key again and again while it was to be changed",
    )
}

/// What the key holds; loaded and filled in if the cache has nothing, for a write is only put over what it has.
async fn present(writer: &mut Writer<'_>) -> Result<Shown> {
    let (layer, back) = (writer.layer, writer.back);
    loop {
        let now = layer.clock.now();
        match back.get(layer, writer.key).await {
            Ok(Got::Clean { held, fresh_until }) if fresh_until > now => {
                return Ok(shown(held, Source::Store));
            }
            Ok(Got::Dirty(held) | Got::Parked(held)) => return Ok(shown(held, Source::Dirty)),
            Ok(Got::Clean { .. } | Got::Nothing) => {}
            Err(SharedError::NeedsGeneration { .. }) => {
                writer.wait(recovering).await?;
                writer.tire();
                continue;
            }
            Err(error) => return Err(unavailable(error)),
        }
        let token = Token(layer.clock.random());
        let ask = Ask {
            key: writer.key.clone(),
            token,
        };
        match back.ask(layer, ask, now).await {
            Ok(Asked::Found(Got::Clean { held, .. })) => return Ok(shown(held, Source::Store)),
            Ok(Asked::Found(Got::Dirty(held) | Got::Parked(held))) => {
                return Ok(shown(held, Source::Dirty));
            }
            Ok(Asked::Lease(_)) => {
                if let Some(held) = fill(writer, token).await? {
                    return Ok(shown(held, Source::Store));
                }
            }
            Ok(Asked::Wait(_) | Asked::Bypass | Asked::Found(Got::Nothing))
            | Err(SharedError::NeedsGeneration { .. }) => {}
            Err(error) => return Err(unavailable(error)),
        }
        writer.wait(recovering).await?;
        writer.tire();
    }
}

/// Loads the key under a lease. Nothing if somebody took the lease away meanwhile.
async fn fill(writer: &Writer<'_>, token: Token) -> Result<Option<Held>> {
    let (layer, back) = (writer.layer, writer.back);
    let key = [(writer.key.key.clone(), writer.class)];
    let loaded = load_apart(layer, &key).await.pop();
    let row = loaded.unwrap_or(Ok(None)).map_err(Error::from)?;
    let held = held(row.as_ref(), Version::NONE);
    let life = back.life_for_update(layer, writer.class, held.value.as_ref());
    let fill = Fill {
        key: writer.key.clone(),
        token,
        held: held.clone(),
        life,
    };
    let filled = back.fill(layer, fill).await.map_err(unavailable)?;
    Ok(filled.then_some(held))
}

fn shown(held: Held, source: Source) -> Shown {
    Shown { held, source }
}

/// A call of the cache that changes nothing of a key failed.
fn unavailable(error: SharedError) -> Error {
    let kind = match error {
        SharedError::Configuration { .. } => ErrorKind::Configuration,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, error)
}

/// What is answered to an operation that left its key as it was.
fn left_as_is(layer: &Layer, class: usize, shown: &Shown, existed: bool) -> Written {
    let durability = match shown.source {
        Source::Dirty => layer.class(class).durability,
        _ => Durability::Store,
    };
    Written {
        existed,
        receipt: Receipt {
            version: shown.held.version,
            source: shown.source,
            age_bound: std::time::Duration::ZERO,
            durability,
        },
    }
}
