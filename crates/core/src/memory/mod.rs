//! The ports in memory: the plainest code that keeps each contract, and the reference for the others.

mod journal;
mod store;

pub use journal::MemoryJournal;
pub use store::MemoryStore;
