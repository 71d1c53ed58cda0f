//! What is kept of a run that went wrong: the violations, what happened to their keys, and what the nodes said.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ::tidegate::Key;
use tidegate_testkit::history::{History, Violation};

use crate::counters::Addition;

/// Everything that there is to keep.
pub(crate) struct Evidence<'a> {
    pub(crate) seed: u64,
    pub(crate) run: usize,
    /// When the run began.
    pub(crate) began: SystemTime,
    pub(crate) violations: &'a [Violation],
    pub(crate) history: &'a History,
    /// The changes as the database has them, in their order.
    pub(crate) changes: &'a str,
    /// The faults, with the moments they began and ended.
    pub(crate) faults: &'a str,
    /// What was added to numbers.
    pub(crate) additions: &'a [Addition],
    /// What each node said.
    pub(crate) said: &'a [String],
}

impl Evidence<'_> {
    /// Writes it down; where.
    pub(crate) fn keep(&self) -> PathBuf {
        let Self { seed, run, .. } = self;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.join(format!("many_nodes-{seed}-{run}"));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        let mut text = String::new();
        for violation in self.violations {
            writeln!(text, "{violation}").unwrap();
        }
        write("violations.txt", &text);
        let keys: BTreeSet<&Key> = self.violations.iter().map(|found| &found.key).collect();
        for key in keys {
            let name = String::from_utf8_lossy(key.as_bytes()).replace(':', "-");
            write(&format!("{name}.txt"), &self.of_key(key));
        }
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let began = format!("began {:.3} s after 1970\n", began.as_secs_f64());
        write("faults.txt", &(began + self.faults));
        write("changes.txt", self.changes);
        let mut additions: Vec<_> = self.additions.iter().collect();
        additions.sort_by_key(|addition| addition.invoked);
        let lines = additions
            .into_iter()
            .map(|addition| format!("{addition}\n"));
        write("additions.txt", &lines.collect::<String>());
        for (node, said) in self.said.iter().enumerate() {
            write(&format!("node{node}.txt"), said);
        }
        folder
    }

    fn of_key(&self, key: &Key) -> String {
        let mut operations: Vec<_> = self.history.operations().iter().collect();
        operations.retain(|operation| operation.key == *key);
        operations.sort_by_key(|operation| operation.invoked);
        let mut text = "operations\n".to_owned();
        for operation in operations {
            writeln!(text, "{operation}").unwrap();
        }
        writeln!(text, "\nchanges: number, key, version, value").unwrap();
        let name = String::from_utf8_lossy(key.as_bytes());
        for line in self.changes.lines() {
            if line.split('|').nth(1) == Some(&*name) {
                writeln!(text, "{line}").unwrap();
            }
        }
        text
    }
}
