//! The part of a class that concerns writes which reach the store later.

use tidegate::{Class, Conflict, Durability, Strategy, WhenFull, WhenJournalFails};

use super::meant_class::{Refusals, none_of};
use super::section::At;
use super::written::{WrittenClass, WrittenWriteBack};

/// Fills in what is written, or refuses all of it where the class is not write-back.
pub(super) fn mean_write_back(written: &WrittenClass, class: &mut Class, refusals: &Refusals<'_>) {
    let keys = &written.write_back;
    let refuse = |key: &str, line: usize, why: &str| refusals.refuse(written, key, line, why);
    if class.strategy != Strategy::WriteBack {
        let strategy = class.strategy.as_str();
        for (key, line) in given(keys) {
            let why = format!("belongs to write-back classes; this one is {strategy}");
            refuse(key, line, &why);
        }
        return;
    }
    if let Some(linger) = &keys.linger {
        class.linger = linger.value;
    }
    if let Some(batch) = &keys.batch {
        if batch.value == 0 {
            refuse("batch", batch.line, "must be at least 1");
        }
        class.batch = batch.value;
    }
    if let Some(bytes) = &keys.batch_bytes {
        if bytes.value.0 == 0 {
            refuse("batch_bytes", bytes.line, "must not be zero");
        }
        class.batch_bytes = bytes.value.0;
    }
    mean_bounds(written, class, refusals);
    mean_durability(written, class, refusals);
    if let Some(conflict) = &keys.conflict {
        match conflict.value.as_str() {
            "store-wins" => class.conflict = Conflict::StoreWins,
            "cache-wins" => class.conflict = Conflict::CacheWins,
            "merge" => refuse(
                "conflict",
                conflict.line,
                "'merge' is a function, which only the library can be given; write store-wins or cache-wins",
            ),
            other => refuse(
                "conflict",
                conflict.line,
                &none_of(other, &["store-wins", "cache-wins"]),
            ),
        }
    }
    if let Some(delta) = &keys.delta {
        class.delta = delta.value;
        if delta.value && refusals.is_shared {
            let why =
                "is not there with [shared] yet: additions of several nodes would need one journal";
            refuse("delta", delta.line, why);
        }
        if delta.value && keys.conflict.is_some() {
            refuse(
                "conflict",
                keys.conflict.as_ref().map_or(delta.line, |at| at.line),
                "does nothing with delta = true: additions do not conflict",
            );
        }
    }
}

/// How much may be unflushed, and what a write does then.
fn mean_bounds(written: &WrittenClass, class: &mut Class, refusals: &Refusals<'_>) {
    let keys = &written.write_back;
    let refuse = |key: &str, line: usize, why: &str| refusals.refuse(written, key, line, why);
    if let Some(dirty) = &keys.dirty_max {
        if dirty.value.0 < 4096 {
            refuse("dirty_max", dirty.line, "must be at least 4KiB");
        }
        class.dirty_bytes_max = dirty.value.0;
    }
    if let Some(entries) = &keys.dirty_entries_max {
        if entries.value == 0 {
            refuse("dirty_entries_max", entries.line, "must be at least 1");
        }
        class.dirty_entries_max = entries.value;
    }
    if let Some(age) = &keys.dirty_age_max {
        if age.value.is_zero() {
            refuse(
                "dirty_age_max",
                age.line,
                "must not be zero; leave it out for no bound on the age",
            );
        } else if age.value <= class.linger {
            refuse(
                "dirty_age_max",
                age.line,
                "must be longer than linger, or every write meets it",
            );
        }
        class.dirty_age_max = Some(age.value);
    }
    if let Some(At { value, line }) = &keys.when_full {
        match value.as_str() {
            "block" => class.when_full = WhenFull::Block,
            "reject" => class.when_full = WhenFull::Reject,
            "write-through" => class.when_full = WhenFull::WriteThrough,
            other => refuse(
                "when_full",
                *line,
                &none_of(other, &["block", "reject", "write-through"]),
            ),
        }
    }
    if let Some(timeout) = &keys.block_timeout {
        if class.when_full != WhenFull::Block {
            let why = "does nothing unless when_full is \"block\"";
            refuse("block_timeout", timeout.line, why);
        }
        class.block_timeout = timeout.value;
    }
}

/// What an acknowledgement can mean, as it is written.
const DURABILITIES: [(&str, Durability); 4] = [
    ("journal", Durability::Journal),
    ("redis", Durability::Shared),
    ("both", Durability::Both),
    ("memory", Durability::Memory),
];

/// What an acknowledgement means, and what becomes of writes when it cannot be had.
fn mean_durability(written: &WrittenClass, class: &mut Class, refusals: &Refusals<'_>) {
    let keys = &written.write_back;
    let refuse = |key: &str, line: usize, why: &str| refusals.refuse(written, key, line, why);
    if let Some(durability) = &keys.durability {
        let word = durability.value.as_str();
        match DURABILITIES.iter().find(|(name, _)| *name == word) {
            Some((_, meant)) => class.durability = *meant,
            None => {
                let names = DURABILITIES.map(|(name, _)| name);
                refuse("durability", durability.line, &none_of(word, &names));
            }
        }
        if matches!(word, "redis" | "both") && !refusals.is_shared {
            let why =
                format!("'{word}' keeps writes in the shared cache, and there is no [shared]");
            refuse("durability", durability.line, &why);
        }
    }
    if let Some(At { value, line }) = &keys.when_journal_fails {
        match value.as_str() {
            "refuse" => class.when_journal_fails = WhenJournalFails::Refuse,
            "write-through" => class.when_journal_fails = WhenJournalFails::WriteThrough,
            other => refuse(
                "when_journal_fails",
                *line,
                &none_of(other, &["refuse", "write-through"]),
            ),
        }
        if !matches!(class.durability, Durability::Journal | Durability::Both) {
            let why = "does nothing with this durability, which does not wait for the journal";
            refuse("when_journal_fails", *line, why);
        }
    }
}

/// The keys that are written, and their lines.
fn given(keys: &WrittenWriteBack) -> impl Iterator<Item = (&'static str, usize)> {
    fn line<T>(at: &Option<At<T>>) -> Option<usize> {
        at.as_ref().map(|at| at.line)
    }
    let lines = [
        ("durability", line(&keys.durability)),
        ("linger", line(&keys.linger)),
        ("batch", line(&keys.batch)),
        ("batch_bytes", line(&keys.batch_bytes)),
        ("dirty_max", line(&keys.dirty_max)),
        ("dirty_entries_max", line(&keys.dirty_entries_max)),
        ("dirty_age_max", line(&keys.dirty_age_max)),
        ("when_full", line(&keys.when_full)),
        ("block_timeout", line(&keys.block_timeout)),
        ("when_journal_fails", line(&keys.when_journal_fails)),
        ("conflict", line(&keys.conflict)),
        ("delta", line(&keys.delta)),
    ];
    lines
        .into_iter()
        .filter_map(|(key, line)| Some((key, line?)))
}
