//! Places where the process can be made to end at once, for tests of what a crash there costs.
//!
//! Only in a build with the feature `fail-points`, which no release has: `TIDEGATE_FAIL_POINT=apply:before:3` ends the
//! process when it is about to bring a batch to the store for the third time. Nothing is finished, flushed or told, as
//! if the machine had taken the process away.
//!
//! The points lie around everything that outlives the process. Steps that only change memory (making dirty, claiming,
//! settling) need none of their own: a crash before and after them leaves the same on disk as one at the nearest point.
//!
//! | point | before and after |
//! |---|---|
//! | `append` | records of writes are handed to the journal; making dirty follows `append:after` |
//! | `sync` | they are durable |
//! | `acknowledge` | answers are handed to the socket |
//! | `apply` | a batch is in the store; claiming comes just before, settling just after |
//! | `load` | rows are read |
//! | `park` | the record of a dead letter is handed to the journal |
//! | `discard` | the record of a discard is handed to the journal |
//! | `checkpoint` | a checkpoint is handed to the journal |
//! | `trim` | the journal may forget; comes after settling |

mod journal;
mod store;

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use journal::FailingJournal;
pub(crate) use store::FailingStore;

/// Where to end, as the environment says.
struct Plan {
    point: String,
    side: String,
    /// Hits that are still to come, the last one included.
    left: AtomicU64,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let text = std::env::var("TIDEGATE_FAIL_POINT").ok()?;
        let mut parts = text.splitn(3, ':');
        let plan = Plan {
            point: parts.next()?.to_owned(),
            side: parts.next()?.to_owned(),
            left: AtomicU64::new(parts.next()?.parse().ok()?),
        };
        Some(plan)
    })
    .as_ref()
}

/// Ends the process if this is where it is to end.
pub(crate) fn hit(point: &str, side: &str) {
    let Some(plan) = plan() else { return };
    if plan.point == point && plan.side == side && plan.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        process::abort();
    }
}
