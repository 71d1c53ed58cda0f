//! Numbers that tell files apart: the id of a journal, the salt of a segment.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that differs from all others, as far as chance goes. It orders nothing and decides nothing, so
/// it does not come from the clock's seed: two runs of one simulation may well have different salts.
pub(super) fn random() -> u64 {
    // The keys of std's hasher come from the operating system and change with every call.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn differs_from_call_to_call() {
        assert_ne!(super::random(), super::random());
    }
}
