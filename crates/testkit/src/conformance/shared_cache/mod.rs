//! What every [`SharedCache`] must do, as named cases, and a comparison of two of them step by step.
//!
//! An adapter's author writes two tests. One makes an empty cache as a [`Scene`] for each case and hands it to
//! [`run`]. The other hands a scene of the adapter and one of the reference to [`differential`]. The reference,
//! `tidegate_core::memory::MemorySharedCache`, passes both as [`MemoryScene`].
//!
//! ```
//! use std::sync::Arc;
//! use tidegate_testkit::conformance::shared_cache::{MemoryScene, Scene, run};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! run(|_case| async { Arc::new(MemoryScene::new()) as Arc<dyn Scene> }).await;
//! # });
//! ```
//!
//! The cases in reading order: reads (leases, fills, freshness, what ends by time), marks (and releases, sweeps,
//! invalidations), generations (and what is lost), puts, flushes (claims and what became of them), replays, watches.

#![expect(clippy::unwrap_used, reason = "a suite fails by panic, like any test")]

mod differential;
mod flushes;
mod generations;
mod marks;
mod memory_scene;
mod puts;
mod reads;
mod replays;
mod stage;
mod watches;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::port::{BoxFuture, Clock, SharedCache};

pub use differential::{Differential, differential};
pub use memory_scene::MemoryScene;
use stage::Stage;

/// A cache to be tried, empty at first, and what a test may do to it. What an implementation cannot do answers false,
/// and the cases that need it do nothing.
///
/// The cache has at least four shards, and its leases hold for at most a few seconds where time cannot be stepped.
pub trait Scene: Send + Sync {
    /// A connection to the cache: the same one at every call, until it is closed or the server became another.
    fn cache(&self) -> Arc<dyn SharedCache>;

    /// The clock that the cache was given, by whose sleep the cases wait.
    fn clock(&self) -> Arc<dyn Clock>;

    /// The server loses everything and goes on as the same one.
    fn lose_everything(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    /// The server ends and starts again, as another one, with all it had.
    fn restart(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    /// A replica stops following, and has what is there now.
    fn save(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    /// The replica of the last [`save`](Self::save) takes over.
    fn fail_over(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    /// The server cannot be reached from now on, or can be again.
    fn refuse(&self, _refuses: bool) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

/// One thing that every shared cache must do.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: lower case, underscores.
    pub name: &'static str,
    try_on: fn(Arc<dyn Scene>) -> BoxFuture<'static, ()>,
}

impl Case {
    /// Tries it. The scene is used up.
    ///
    /// # Panics
    /// When the cache does not do it.
    pub async fn try_on(&self, scene: Arc<dyn Scene>) {
        (self.try_on)(scene).await;
    }
}

macro_rules! cases {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        &[$($(Case {
            name: stringify!($name),
            try_on: |scene| Box::pin(async move { $module::$name(Stage::set(scene).await).await }),
        }),*),*]
    };
}

/// All cases, in reading order.
pub const CASES: &[Case] = cases![
    reads:
        an_absent_key_is_leased_to_one,
        what_the_holder_of_a_lease_fills_is_served,
        a_fill_without_the_lease_does_nothing,
        what_is_not_fresh_is_leased_and_stays,
        a_load_anew_does_not_go_back,
        a_lease_ends_by_itself,
        a_lease_to_load_anew_ends_by_itself,
        a_clean_entry_ends_by_itself,
        an_eviction_takes_what_is_clean_or_leased_only,
        a_clear_takes_what_is_clean_or_leased_only,
        classes_are_apart,
        many_are_answered_one_by_one,
        any_bytes_are_kept,
        the_facts_are_told;
    marks:
        a_marked_key_is_not_served,
        a_release_makes_clean_what_it_brought,
        marks_add_up_and_the_newest_stays,
        an_aborted_write_leaves_nothing,
        a_write_that_is_not_to_be_seen_leaves_nothing_older,
        a_mark_made_twice_is_one,
        a_release_without_its_mark_brings_nothing,
        a_sweep_takes_a_mark_and_taints,
        leftovers_are_marks_of_before,
        an_invalidation_takes_what_is_older,
        a_quarantine_remembers_what_others_wrote,
        a_quarantine_does_not_end_by_itself;
    generations:
        a_new_shard_needs_a_generation,
        a_generation_is_closed_until_it_is_opened,
        a_current_generation_is_not_raised,
        no_leases_are_given_while_closed,
        a_quarantine_of_a_closed_shard_is_tainted,
        what_was_lost_needs_a_generation,
        another_server_needs_a_generation,
        a_generation_is_not_raised_to_an_old_one,
        a_server_that_lags_behind_brings_nothing_back,
        what_cannot_be_reached_is_unavailable,
        a_closed_cache_is_unavailable;
    puts:
        a_put_is_dirty_and_served,
        a_put_knows_what_was_there,
        versions_rise_within_a_shard,
        a_put_expects_a_version,
        a_put_waits_for_quarantine_and_grace,
        a_shard_is_full_by_bytes,
        a_put_takes_the_lease_away,
        a_dirty_key_is_not_marked_nor_leased,
        what_is_dirty_is_counted;
    flushes:
        the_oldest_are_claimed_first,
        a_claim_is_for_a_while,
        a_claim_ends_with_its_flush,
        what_is_stored_becomes_clean,
        what_was_written_again_stays_dirty,
        an_old_flush_takes_nothing_back,
        what_is_put_off_is_claimed_later,
        what_goes_over_a_row_is_newer_than_it,
        what_is_refused_is_parked,
        a_write_takes_the_place_of_a_parked_one,
        what_is_parked_can_be_dirty_again,
        what_is_given_up_is_absent,
        what_others_wrote_meanwhile_makes_absent,
        what_is_stored_while_closed_is_absent,
        a_flush_of_what_the_cache_lost_takes_the_older;
    replays:
        a_replay_is_dirty_again,
        a_replay_does_not_go_back,
        a_replay_raises_what_is_given_out,
        a_replay_goes_over_what_is_older,
        a_replay_waits_for_quarantine,
        a_replay_goes_into_a_closed_shard;
    watches:
        every_change_is_told_before_the_fence,
        a_loss_is_told,
        a_closed_watch_ends;
];

/// Tries every case on a scene of its own.
///
/// # Panics
/// When a case fails; its name is printed before.
pub async fn run<Make, Making>(make: Make)
where
    Make: Fn(&'static str) -> Making,
    Making: Future<Output = Arc<dyn Scene>>,
{
    for case in CASES {
        eprint_case(case.name);
        case.try_on(make(case.name).await).await;
    }
}

/// A failure is preceded by the name of what failed.
#[expect(clippy::print_stderr, reason = "shown only when a test fails")]
fn eprint_case(name: &str) {
    eprintln!("shared cache: {name}");
}

/// A little more than that, for what is to be over.
fn past(duration: Duration) -> Duration {
    duration + duration / 10 + Duration::from_millis(20)
}
