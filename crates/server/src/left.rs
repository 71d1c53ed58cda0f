//! What a shutdown leaves behind, and where it is.

use tidegate::{Class, Durability, FlushReport, Stats};

use crate::config::{Config, duration_text};

/// Entries and their bytes: keys, values and what it takes to keep them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Amount {
    pub(crate) entries: u64,
    bytes: u64,
}

/// What was acknowledged and is not in the store.
#[derive(PartialEq, Eq, Default, Debug)]
pub(crate) struct Left {
    /// In the journal; the next start goes on with it.
    journal: Amount,
    /// In the journal; a person decides.
    dead_letters: Amount,
    /// Nowhere: classes of durability memory.
    pub(crate) lost: Amount,
}

impl Left {
    pub(crate) fn of(report: &FlushReport, stats: &Stats, classes: &[Class]) -> Self {
        let mut left = Self::default();
        for flush in &report.classes {
            let named = |name: &str| name == flush.class;
            let memory = classes
                .iter()
                .any(|class| named(&class.name) && class.durability == Durability::Memory);
            let bytes = stats.classes.iter().find(|class| named(&class.name));
            let (dirty, parked) = bytes.map_or((0, 0), |class| {
                (
                    class.dirty_bytes.saturating_sub(class.parked_bytes),
                    class.parked_bytes,
                )
            });
            let place = if memory {
                &mut left.lost
            } else {
                &mut left.journal
            };
            place.add(flush.left, dirty);
            left.dead_letters.add(flush.parked, parked);
        }
        left
    }

    /// For the person who reads the log.
    pub(crate) fn line(&self, config: &Config) -> String {
        let drained = config
            .server
            .drain_timeout
            .unwrap_or(config.server.shutdown_timeout);
        let journal = config.journal_path.display();
        let mut parts = Vec::new();
        if self.journal.entries > 0 {
            parts.push(format!(
                "{} in the journal {journal}, with which the next start goes on",
                self.journal.text("dirty entry", "dirty entries")
            ));
        }
        if self.dead_letters.entries > 0 {
            parts.push(format!(
                "{} kept in the journal {journal}: see `tidegate dead-letters list` after the next start",
                self.dead_letters.text("dead letter", "dead letters")
            ));
        }
        if self.lost.entries > 0 {
            parts.push(format!(
                "{} of classes with durability memory, which nothing else had: lost",
                self.lost.text("dirty entry", "dirty entries")
            ));
        }
        format!(
            "tidegate ended after a drain of at most {}; not in the store: {}",
            duration_text(drained),
            parts.join("; ")
        )
    }
}

impl Amount {
    fn add(&mut self, entries: u64, bytes: u64) {
        self.entries += entries;
        self.bytes += if entries > 0 { bytes } else { 0 };
    }

    fn text(self, one: &str, many: &str) -> String {
        let what = if self.entries == 1 { one } else { many };
        format!("{} {what} ({} bytes)", self.entries, self.bytes)
    }
}
