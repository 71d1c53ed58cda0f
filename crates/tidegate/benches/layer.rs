//! What the layer costs and gains, each figure beside the alternative in the same run:
//!
//! - a near hit through `Gate::get` beside a bare quick_cache get;
//! - write-through with 64 writers beside 64 connections that each commit one upsert at a time, on uniform
//!   and on hot keys, with the latency of the slowest hundredth;
//! - misses with 64 readers beside single selects over as many connections.
//!
//! `cargo bench -p tidegate --features postgres --bench layer [near|write|miss]`. Starts its own PostgreSQL,
//! with fsync on, and uses one thread on both sides, for the database needs the others; `TIDEGATE_LANES=n` tries another number of lanes. Rounds alternate between the two sides; medians are printed. Nothing here fails.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends at an error"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "layer/keys.rs"]
mod keys;
#[path = "layer/miss.rs"]
mod miss;
#[path = "layer/near.rs"]
mod near;
#[path = "layer/write.rs"]
mod write;

use std::time::Duration;

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The latency that `share` of all were within.
fn percentile(latencies: &mut [Duration], share: f64) -> Duration {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1);
    latencies
        .get((last as f64 * share) as usize)
        .copied()
        .unwrap_or_default()
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    if wants("near") {
        near::run();
    }
    if wants("write") {
        write::run();
    }
    if wants("miss") {
        miss::run();
    }
}
