//! The rows of the command table for what follows `TIDEGATE`.

use super::super::row::{Command, Handler};
use super::{class, dead_letters, evict, explain, flush, help};

/// In the order of their names.
pub(in crate::command) static SUBCOMMANDS: &[Command] = &[
    Command::new("class", -2, Handler::Keys(class))
        .flags(&["readonly", "fast"])
        .keys(2, 2, 1, &["RO"])
        .categories(&["@read", "@fast"])
        .syntax("[key]")
        .docs(
            "tidegate",
            "0.1.0",
            "O(N)",
            "The class of a key, or all classes.",
        ),
    Command::new(
        "deadletters",
        -3,
        Handler::Keyspace(dead_letters::dead_letters),
    )
    .flags(&["admin", "write"])
    .categories(&["@admin", "@write", "@slow", "@dangerous"])
    .syntax(dead_letters::SYNTAX)
    .docs(
        "tidegate",
        "0.2.0",
        "O(N)",
        "Acknowledged writes that the store refuses: list, look, retry, edit, discard.",
    ),
    Command::new("evict", -3, Handler::Keys(evict))
        .flags(&["fast"])
        .keys(2, -1, 1, &["RW"])
        .categories(&["@keyspace", "@fast"])
        .syntax("key [key ...]")
        .docs(
            "tidegate",
            "0.1.0",
            "O(N)",
            "Drops the cached copies of keys; the store keeps them.",
        ),
    Command::new("explain", 3, Handler::Keys(explain))
        .flags(&["readonly", "fast"])
        .keys(2, 2, 1, &["RO"])
        .categories(&["@read", "@fast"])
        .syntax("key")
        .docs(
            "tidegate",
            "0.1.0",
            "O(1)",
            "What is known of a key: class, state, version, age.",
        ),
    Command::new("flush", -2, Handler::Keyspace(flush::flush))
        .flags(&["write"])
        .categories(&["@write", "@slow"])
        .syntax("[[KEY] key | CLASS name] [TIMEOUT milliseconds]")
        .docs(
            "tidegate",
            "0.1.0",
            "O(N)",
            "Waits until the store has what is dirty: of a key, of a class, or everything.",
        ),
    Command::new("help", 2, Handler::Session(help))
        .categories(&["@slow"])
        .docs("tidegate", "0.1.0", "O(1)", "What TIDEGATE can do."),
    Command::new("secure", -4, Handler::Keyspace(flush::secure))
        .flags(&["write"])
        .categories(&["@write", "@slow"])
        .syntax("key JOURNAL|STORE [TIMEOUT milliseconds]")
        .docs(
            "tidegate",
            "0.2.0",
            "O(1)",
            "Waits until the newest write of a key is synced to the journal, or in the store.",
        ),
];
