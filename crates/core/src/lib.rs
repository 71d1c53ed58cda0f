//! The layer between an application and its database.
//!
//! Every write of a key goes through the cache to the store, back to it later, or around the cache, as the
//! key's class says; every read is served from memory when it can be. This crate holds the words, the ports
//! and the layer itself; it knows no driver, no socket, no file, no clock and no random number, except
//! through a [port](port).
//!
//! In reading order: vocabulary ([`Key`], [`Entry`], [`Version`], [`Error`]), [ports](port), the
//! [reference implementations](memory), then the layer.

mod entry;
mod key;
pub mod memory;
pub mod port;
mod version;

pub use entry::{Change, Entry, VALUE_BYTES_MAX};
pub use key::{KEY_BYTES_MAX, Key};
pub use version::{GENERATION_MAX, Version};
