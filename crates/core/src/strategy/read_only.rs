//! Read-only: reads as write-through; writes are refused before anything is done.

use crate::error::{Error, ErrorKind, Result};
use crate::layer::Layer;

/// What every write of such a class is told.
pub(crate) fn refuse(layer: &Layer, class: usize) -> Result<()> {
    let name = &layer.state(class).name;
    Err(Error::new(
        ErrorKind::ReadOnly,
        format_args!("class '{name}' takes no writes"),
    ))
}
