//! More durability for one key of the shared cache than its class promises.

use std::time::Duration;

use super::kept::KeptWrite;
use super::stored::{NotStored, until_stored};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::layer::Layer;
use crate::port::Got;
use crate::receipt::{Durability, Receipt, Source};
use crate::shared::shared_key;
use crate::version::Version;

/// Returns when the newest write of `key` that was acknowledged before the call is as durable as asked.
pub(crate) async fn secure(
    layer: &Layer,
    class: usize,
    key: &Key,
    durability: Durability,
    deadline: Duration,
) -> Result<Receipt> {
    let Some(back) = super::of(layer) else {
        return Err(Error::invalid("there is no shared cache"));
    };
    let until = layer.clock.elapsed().saturating_add(deadline);
    let key = shared_key(layer, class, key);
    let found = back.get(layer, &key).await;
    let held = match found.map_err(|error| Error::new(ErrorKind::Unavailable, error))? {
        Got::Clean { held, .. } => return Ok(receipt(held.version, Durability::Store)),
        Got::Nothing => return Ok(receipt(Version::NONE, Durability::Store)),
        Got::Parked(held) | Got::Dirty(held) => held,
    };
    let (version, has) = (held.version, layer.class(class).durability);
    let is_enough = match durability {
        // Neither is more than the other.
        Durability::Shared => has != Durability::Memory,
        Durability::Journal => matches!(has, Durability::Journal | Durability::Both),
        wanted => has >= wanted,
    };
    if is_enough {
        return Ok(receipt(version, has));
    }
    match durability {
        Durability::Store => match until_stored(layer, back, &key, version, until).await {
            Ok(()) => Ok(receipt(version, Durability::Store)),
            Err(NotStored::Refused(refusal)) => {
                let code = refusal
                    .code
                    .map(|code| format!(" ({code})"))
                    .unwrap_or_default();
                let message = format!("the write is a dead letter{code}: {}", refusal.message);
                Err(Error::new(ErrorKind::Refused, message))
            }
            Err(NotStored::Late) => Err(Error::new(
                ErrorKind::Unavailable,
                format_args!(
                    "the write did not reach the store within {deadline:?}; it is in the shared cache, and goes on by \
                     itself"
                ),
            )),
        },
        Durability::Journal if layer.journal.is_some() => {
            let write = KeptWrite {
                key,
                held,
                base: None,
                since: layer.clock.now(),
                lost: None,
            };
            back.journal(layer, &write).await.map_err(|error| {
                layer.note_journal_failure(&error);
                Error::new(ErrorKind::Unavailable, error)
            })?;
            Ok(receipt(version, Durability::Journal))
        }
        _ => Err(Error::invalid(
            "a write of the shared cache can be made as durable as the journal, if there is one, or the store",
        )),
    }
}

fn receipt(version: Version, durability: Durability) -> Receipt {
    let source = match durability {
        Durability::Store => Source::Store,
        _ => Source::Dirty,
    };
    Receipt {
        version,
        source,
        age_bound: Duration::ZERO,
        durability,
    }
}
