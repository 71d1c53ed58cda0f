//! The ports in memory: the plainest code that keeps each contract, and the reference for the others.

mod journal;
mod many_nodes;
mod store;

pub use journal::MemoryJournal;
pub use many_nodes::Begun;
pub use store::MemoryStore;
