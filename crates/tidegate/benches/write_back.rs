//! Write-back through a gate, each figure beside what it is to be measured by, in the same run:
//!
//! - `acknowledged`: acknowledged writes a second with 1, 16 and 128 writers, for each durability, beside one
//!   thread that writes groups of the same size into a file filled ahead and syncs each; and, where
//!   redis-server and redis-benchmark are installed, beside a redis-server that syncs always or every second.
//! - `coalesced`: rows written for each write acknowledged, with keys drawn by Zipf's law.
//! - `flushed`: rows a second into SQLite and PostgreSQL, beside the fastest batch written by hand.
//!
//! `cargo bench -p tidegate --features postgres --bench write_back [acknowledged|coalesced|flushed]`. Sides
//! take turns and medians are printed. It measures where the build folder is. Nothing here fails.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends at an error"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "write_back/acknowledged.rs"]
mod acknowledged;
#[path = "write_back/coalesced.rs"]
mod coalesced;
#[path = "write_back/counting.rs"]
mod counting;
#[path = "write_back/flushed.rs"]
mod flushed;
#[path = "layer/keys.rs"]
mod keys;

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    if wants("acknowledged") {
        acknowledged::run();
    }
    if wants("coalesced") {
        coalesced::run();
    }
    if wants("flushed") {
        flushed::run();
    }
}
