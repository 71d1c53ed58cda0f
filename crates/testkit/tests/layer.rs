//! The layer's promises, one test each, under stepped time: the read path, each strategy, write-back.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

#[path = "layer/conflicts.rs"]
mod conflicts;
#[path = "layer/dead_letters.rs"]
mod dead_letters;
#[path = "layer/delta.rs"]
mod delta;
#[path = "layer/durability.rs"]
mod durability;
#[path = "layer/flush_pace.rs"]
mod flush_pace;
#[path = "layer/flush_reports.rs"]
mod flush_reports;
#[path = "layer/hooked.rs"]
mod hooked;
#[path = "layer/isolation.rs"]
mod isolation;
#[path = "peers/life.rs"]
mod life;
#[path = "layer/outlived.rs"]
mod outlived;
#[path = "layer/read_path.rs"]
mod read_path;
#[path = "layer/shared_back.rs"]
mod shared_back;
#[path = "layer/shared_back_random.rs"]
mod shared_back_random;
#[path = "layer/shared_lag.rs"]
mod shared_lag;
#[path = "layer/shared_levels.rs"]
mod shared_levels;
#[path = "layer/shared_nodes.rs"]
mod shared_nodes;
#[path = "layer/shared_through.rs"]
mod shared_through;
#[path = "layer/through.rs"]
mod through;
#[path = "layer/world.rs"]
mod world;
#[path = "layer/write_back.rs"]
mod write_back;
#[path = "layer/write_back_limits.rs"]
mod write_back_limits;
#[path = "layer/write_paths.rs"]
mod write_paths;
