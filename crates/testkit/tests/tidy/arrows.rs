//! Who may know whom. Arrows go one way: `resp` and `core` know nobody, `tidegate` and `testkit` know `core`,
//! `server` knows `tidegate` and `resp`. And `core` meets the world through its ports alone.

use super::expect_none;
use super::source::{code, is_within, paths};
use super::tree;

/// What a crate may depend on, and what its code must not name.
struct Rule {
    name: &'static str,
    folder: &'static str,
    dependencies: &'static [&'static str],
    dev_dependencies: &'static [&'static str],
    /// Beside the crates of this workspace that are not listed above.
    never: &'static [&'static str],
}

const DRIVERS: &[&str] = &["rusqlite", "tokio_postgres", "redis"];

const RULES: &[Rule] = &[
    Rule {
        name: "tidegate-resp",
        folder: "crates/resp",
        dependencies: &[],
        dev_dependencies: &[],
        never: &[
            "tokio",
            "std::net",
            "std::fs",
            "std::time",
            "std::thread",
            "std::process",
        ],
    },
    Rule {
        name: "tidegate-core",
        folder: "crates/core",
        dependencies: &[],
        dev_dependencies: &[],
        never: &[
            "std::net",
            "std::fs",
            "std::env",
            "std::process",
            "std::thread::sleep",
            "std::thread::spawn",
            "std::time::Instant",
            "std::time::SystemTime",
            "tokio::net",
            "tokio::fs",
            "tokio::time",
            "tokio::process",
            "fastrand",
            "rand",
            "getrandom",
            "rusqlite",
            "tokio_postgres",
            "redis",
        ],
    },
    Rule {
        name: "tidegate",
        folder: "crates/tidegate",
        dependencies: &["tidegate-core"],
        dev_dependencies: &["tidegate-testkit"],
        never: &[],
    },
    Rule {
        name: "tidegate-testkit",
        folder: "crates/testkit",
        dependencies: &["tidegate-core"],
        dev_dependencies: &[],
        never: &["rusqlite", "tokio_postgres"],
    },
    Rule {
        name: "tidegate-server",
        folder: "crates/server",
        dependencies: &["tidegate", "tidegate-resp"],
        dev_dependencies: &["tidegate-testkit"],
        never: DRIVERS,
    },
];

/// The dependencies of a manifest as (section, name).
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
            // `[dependencies.name]` opens a table of its own.
            if let Some((kind, name)) = section
                .rsplit_once('.')
                .filter(|s| s.0.ends_with("dependencies"))
            {
                found.push((kind.to_owned(), name.to_owned()));
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() {
                found.push((section.clone(), name.to_owned()));
            }
        }
    }
    found
}

fn check_manifest(rule: &Rule, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (section, name) in dependencies(manifest) {
        let dev = section.ends_with("dev-dependencies");
        let ours = name == "tidegate" || name.starts_with("tidegate-");
        let mut allowed = rule.dependencies.contains(&&*name);
        allowed |= dev && rule.dev_dependencies.contains(&&*name);
        if ours && !allowed {
            problems.push(format!(
                "{}/Cargo.toml: [{section}] must not have {name}",
                rule.folder
            ));
        }
        // Tests may look into a database to see what is there.
        if !ours && !dev && rule.never.contains(&&*name.replace('-', "_")) {
            problems.push(format!(
                "{}/Cargo.toml: [{section}] must not have {name}",
                rule.folder
            ));
        }
    }
    problems
}

fn check_source(rule: &Rule, path: &str, source: &str) -> Vec<String> {
    let ours = RULES.iter().map(|other| other.name);
    let ours = ours.filter(|name| *name != rule.name && !rule.dependencies.contains(name));
    let ours: Vec<String> = ours.map(|name| name.replace('-', "_")).collect();
    let never = rule
        .never
        .iter()
        .copied()
        .chain(ours.iter().map(String::as_str));
    let never: Vec<&str> = never.collect();
    let mut problems = Vec::new();
    for written in paths(&code(source)) {
        // A word alone may be any name; a path or an import of it is not.
        let bare = !written.contains("::");
        for name in &never {
            if !bare && is_within(&written, name) {
                problems.push(format!("{path}: must not know {name} (has {written})"));
            }
        }
    }
    problems.dedup();
    problems
}

#[test]
fn arrows_go_one_way() {
    let files = tree::files();
    let mut problems = Vec::new();
    for rule in RULES {
        problems.extend(check_manifest(
            rule,
            &tree::read(&format!("{}/Cargo.toml", rule.folder)),
        ));
        let sources = format!("{}/src/", rule.folder);
        for file in files
            .iter()
            .filter(|f| f.path.starts_with(&sources) && f.is_rust())
        {
            problems.extend(check_source(rule, &file.path, &file.text().unwrap()));
        }
    }
    let crates = files
        .iter()
        .filter(|f| f.path.ends_with("/Cargo.toml"))
        .count();
    if crates != RULES.len() {
        problems.push(format!(
            "{crates} crates and {} rules: every crate has one",
            RULES.len()
        ));
    }
    expect_none(problems);
}

#[cfg(test)]
fn rule(name: &str) -> &'static Rule {
    RULES.iter().find(|rule| rule.name == name).unwrap()
}

#[test]
fn a_wrong_dependency_is_found() {
    let bad = |name, manifest| check_manifest(rule(name), manifest).len();
    assert_eq!(
        bad(
            "tidegate-core",
            "[dependencies]\ntidegate-resp.workspace = true\n"
        ),
        1
    );
    assert_eq!(
        bad(
            "tidegate-core",
            "[dependencies.tokio-postgres]\nversion = \"1\"\n"
        ),
        1
    );
    assert_eq!(
        bad("tidegate-core", "[dev-dependencies]\nfastrand = \"1\"\n"),
        0
    );
    assert_eq!(
        bad(
            "tidegate-resp",
            "[dependencies]\ntokio = { version = \"1\" }\n"
        ),
        1
    );
    assert_eq!(
        bad(
            "tidegate",
            "[dependencies]\ntidegate-testkit.workspace = true\n"
        ),
        1
    );
    assert_eq!(
        bad(
            "tidegate",
            "[dev-dependencies]\ntidegate-testkit.workspace = true\n"
        ),
        0
    );
    assert_eq!(
        bad(
            "tidegate-testkit",
            "[dev-dependencies]\ntidegate.workspace = true\n"
        ),
        1
    );
    assert_eq!(
        bad(
            "tidegate-server",
            "[target.'cfg(unix)'.dependencies]\nrusqlite = \"0\"\n"
        ),
        1
    );
    assert_eq!(
        bad(
            "tidegate-server",
            "[dependencies]\ntidegate.workspace = true\nbytes = \"1\"\n"
        ),
        0
    );
}

#[test]
fn a_wrong_path_is_found() {
    let bad = |name, source| check_source(rule(name), "x.rs", source).len();
    assert!(bad("tidegate-core", "use std::{fmt, fs};") > 0);
    assert!(bad("tidegate-core", "fn f() { std::time::Instant::now(); }") > 0);
    assert!(bad("tidegate-core", "use std::time::{Duration, SystemTime};") > 0);
    assert!(bad("tidegate-core", "fn f() { tokio::time::sleep(d).await }") > 0);
    assert!(bad("tidegate-core", "fn f() -> u64 { fastrand::u64(..) }") > 0);
    assert_eq!(
        bad(
            "tidegate-core",
            "use std::time::Duration; use tokio::sync::Notify;"
        ),
        0
    );
    assert_eq!(
        bad(
            "tidegate-core",
            "#[cfg(test)]\nmod tests { use std::fs::File; }"
        ),
        0
    );
    assert!(bad("tidegate-resp", "use tidegate_core::Key;") > 0);
    assert!(bad("tidegate-server", "type C = tokio_postgres::Client;") > 0);
    assert!(bad("tidegate-testkit", "use tidegate::Gate;") > 0);
    assert_eq!(bad("tidegate-testkit", "use tidegate_core::Gate;"), 0);
    assert!(bad("tidegate", "use tidegate_server::config;") > 0);
}
