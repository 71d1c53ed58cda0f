//! What library users add.

#[cfg(feature = "journal")]
pub mod journal;
