//! The generation of a shard: raised when the cache may have lost something, closed until all writes of before are
//! over, then opened.

use crate::port::{Shard, ShardState};

use super::state::SharedShard;

impl SharedShard {
    /// Whether its generation was raised for the server that answers now.
    #[must_use]
    pub fn is_current(&self, server: u64) -> bool {
        self.generation > 0 && self.server == server
    }

    /// What to tell of it.
    #[must_use]
    pub fn tell(&self, shard: Shard, server: u64) -> ShardState {
        ShardState {
            shard,
            generation: self.generation,
            is_current: self.is_current(server),
            is_open: self.open && self.is_current(server),
        }
    }

    /// [`SharedCache::open_generation`](crate::port::SharedCache::open_generation).
    pub fn open_generation(&mut self, generation: u64, server: u64) {
        if !self.is_current(server) && generation > self.generation {
            self.generation = generation;
            self.server = server;
            self.open = false;
        }
    }

    /// [`SharedCache::open`](crate::port::SharedCache::open).
    pub fn open(&mut self, generation: u64) -> bool {
        self.open |= self.generation == generation;
        self.generation == generation
    }
}
