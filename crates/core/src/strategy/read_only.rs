//! Read-only: reads as write-through; writes are refused before anything is done.

use crate::error::{Error, ErrorKind, Result};

/// What every write of such a class is told.
pub(crate) fn refuse() -> Result<()> {
    Err(Error::new(ErrorKind::ReadOnly, "the class takes no writes"))
}
