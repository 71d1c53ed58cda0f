//! The figures of the shared cache, declared once: `INFO shared` and the metrics tell the same.

use tidegate::SharedStats;

/// One figure.
pub(crate) struct SharedFigure {
    /// In `INFO`.
    pub(crate) name: &'static str,
    /// Among the metrics; ends in `_total` if it only rises.
    pub(crate) metric: &'static str,
    /// The question it answers.
    pub(crate) help: &'static str,
    pub(crate) of: fn(&SharedStats) -> u64,
}

impl SharedFigure {
    /// Whether it only rises.
    pub(crate) fn is_counter(&self) -> bool {
        self.metric.ends_with("_total")
    }
}

const fn figure(
    name: &'static str,
    metric: &'static str,
    help: &'static str,
    of: fn(&SharedStats) -> u64,
) -> SharedFigure {
    SharedFigure {
        name,
        metric,
        help,
        of,
    }
}

/// All of them that are whole numbers.
pub(crate) static SHARED_FIGURES: [SharedFigure; 16] = [
    figure(
        "asks",
        "tidegate_shared_asks_total",
        "Keys that the shared cache was asked for after it had nothing to serve.",
        |s| s.asks,
    ),
    figure(
        "leases",
        "tidegate_shared_leases_total",
        "Of them leased to this node, which loaded and filled them.",
        |s| s.leases,
    ),
    figure(
        "waits",
        "tidegate_shared_waits_total",
        "Of them waited for while another reader loaded them.",
        |s| s.waits,
    ),
    figure(
        "bypasses",
        "tidegate_shared_bypasses_total",
        "Of them loaded and not filled: a write was under way, a shard closed, or the cache away.",
        |s| s.bypasses,
    ),
    figure(
        "fills",
        "tidegate_shared_fills_total",
        "Loaded keys that the shared cache took.",
        |s| s.fills,
    ),
    figure(
        "fills_refused",
        "tidegate_shared_fills_refused_total",
        "Loaded keys that it did not take, because a write came between.",
        |s| s.fills_refused,
    ),
    figure(
        "marks",
        "tidegate_shared_marks_total",
        "Writes that were marked in the shared cache before their commit.",
        |s| s.marks,
    ),
    figure(
        "marks_failed",
        "tidegate_shared_marks_failed_total",
        "Writes that were refused because they could not be marked.",
        |s| s.marks_failed,
    ),
    figure(
        "marks_late",
        "tidegate_shared_marks_late_total",
        "Writes that the store refused because they came too late after their mark.",
        |s| s.late,
    ),
    figure(
        "releases",
        "tidegate_shared_releases_total",
        "Marks that were taken away because their write had ended.",
        |s| s.releases,
    ),
    figure(
        "releases_pending",
        "tidegate_shared_releases_pending",
        "Marks whose write has ended and that are still to be taken away.",
        |s| s.releases_waiting,
    ),
    figure(
        "releases_left",
        "tidegate_shared_releases_left_total",
        "Marks of this node that were left to be swept: the end of their write was not known, or could not be told.",
        |s| s.releases_left,
    ),
    figure(
        "swept",
        "tidegate_shared_swept_total",
        "Marks, of whatever node, that this one swept after proof that their write is over.",
        |s| s.swept,
    ),
    figure(
        "generation_changes",
        "tidegate_shared_generation_changes_total",
        "How often this node gave shards a new generation, because the shared cache may have lost something.",
        |s| s.generations,
    ),
    figure(
        "shards_opened",
        "tidegate_shared_shards_opened_total",
        "Shards that this node opened after that.",
        |s| s.shards_opened,
    ),
    figure(
        "closed_shards",
        "tidegate_shared_closed_shards",
        "Shards that are closed: their keys are read from the store and not filled.",
        |s| s.shards_closed,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_speak_alike() {
        let names: BTreeSet<_> = SHARED_FIGURES.iter().map(|f| f.name).collect();
        let metrics: BTreeSet<_> = SHARED_FIGURES.iter().map(|f| f.metric).collect();
        assert_eq!(names.len(), SHARED_FIGURES.len());
        assert_eq!(metrics.len(), SHARED_FIGURES.len());
        for figure in &SHARED_FIGURES {
            let plain = figure.metric.strip_prefix("tidegate_shared_").unwrap();
            let plain = plain.strip_suffix("_total").unwrap_or(plain);
            assert_eq!(plain, figure.name);
            assert!(figure.help.ends_with('.'), "{}", figure.help);
        }
    }
}
