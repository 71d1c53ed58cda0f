//! Adding to a whole number.

use crate::delta::{SumError, sum};
use crate::entry::{Change, Entry};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::layer::Layer;
use crate::receipt::Written;

/// Adds `by` to what `key` holds. In a class of deltas it stays an addition all the way to the store; in any
/// other it is a read and a write.
pub(super) async fn add(layer: &Layer, key: &[u8], by: i64) -> Result<(i64, Written)> {
    let is_delta = layer.class(layer.class_of(key)).delta;
    let change = move |current: Option<&Entry>| change(current, by, is_delta);
    let (value, written) = super::update::update(layer, key, change).await?;
    let class = || layer.state(layer.class_of(key)).name.clone();
    let refused = |error: SumError| {
        Error::invalid(error)
            .with_key(&Key::copy_from(key))
            .with_class(&class())
    };
    Ok((value.map_err(refused)?, written))
}

/// What an addition makes of a key, and what it comes to.
fn change(
    current: Option<&Entry>,
    by: i64,
    is_delta: bool,
) -> (Option<Change>, std::result::Result<i64, SumError>) {
    let value = match sum(current.map(|entry| &*entry.value), by) {
        Ok(value) => value,
        Err(error) => return (None, Err(error)),
    };
    let change = match is_delta {
        true => Change::Add { by },
        false => Change::Put {
            value: value.to_string().into(),
            expires_at: current.and_then(|entry| entry.expires_at),
        },
    };
    (Some(change), Ok(value))
}
