//! The ports in memory: the plainest code that keeps each contract, and the reference for the others.

mod journal;
mod many_nodes;
mod shared_cache;
mod store;

pub use journal::MemoryJournal;
pub use many_nodes::Begun;
pub use shared_cache::{MemorySharedCache, SharedSettings, SharedSnapshot};
pub use store::MemoryStore;

/// The state machine of the [shared cache](crate::port::SharedCache), without a clock or a lock: what another
/// implementation is held against, and what a test takes through every order of its steps.
pub mod machine {
    pub use super::shared_cache::{
        Clean, Dirty, Quarantine, Replayed, SharedEntry, SharedShard, SharedState,
    };
}
