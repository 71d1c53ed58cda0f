//! Names that say something, files of a size that can be read, a first line that says what a file is, and no
//! traces of the desk it was written at.

use super::expect_none;
use super::tree;

/// Names of buckets: whatever is in them has an owner, and lives there.
const BUCKETS: &[&str] = &[
    "common", "helper", "helpers", "misc", "prelude", "types", "util", "utils",
];

const LINES_MAX: usize = 600;

/// Files that are longer for now. They may only shrink; what fits again is taken off.
const LONGER: &[(&str, usize)] = &[
    ("crates/server/src/command/table.rs", 673),
    ("crates/tidegate/tests/store_postgres_faults.rs", 724),
];

/// Absolute paths of somebody's machine, written in two parts so that this file has none.
const DESKS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
];

fn bucket(path: &str) -> Option<String> {
    let parts = path
        .split('/')
        .map(|part| part.strip_suffix(".rs").unwrap_or(part));
    let name = parts.into_iter().find(|part| BUCKETS.contains(part))?;
    Some(format!("{path}: '{name}' is a bucket; name what is in it"))
}

fn undocumented(path: &str, source: &str) -> Option<String> {
    let first = source.lines().find(|line| !line.trim().is_empty());
    let says = first.is_some_and(|line| {
        line.strip_prefix("//! ")
            .is_some_and(|s| !s.trim().is_empty())
    });
    (!says).then(|| format!("{path}: must begin with `//!` and say what it is"))
}

fn too_long(path: &str, lines: usize, longer: &[(&str, usize)]) -> Option<String> {
    let known = longer.iter().find(|(known, _)| *known == path);
    match known {
        None if lines > LINES_MAX => Some(format!(
            "{path}: {lines} lines; split it, {LINES_MAX} is the most"
        )),
        Some((_, most)) if lines > *most => Some(format!(
            "{path}: grew from {most} to {lines} lines; it may only shrink"
        )),
        Some(_) if lines <= LINES_MAX => Some(format!(
            "{path}: fits again; take it off the list in names.rs"
        )),
        _ => None,
    }
}

fn desk(path: &str, text: &str) -> Option<String> {
    let word = DESKS.iter().find(|word| {
        let mut found = text.match_indices(**word);
        // Part of a longer path is something else: `target/work/x`.
        found.any(|(at, _)| {
            !text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-$}".contains(c))
        })
    })?;
    Some(format!("{path}: names a path of one machine ({word})"))
}

#[test]
fn names_docs_and_sizes_are_in_order() {
    let mut problems = Vec::new();
    let files = tree::files();
    for file in &files {
        problems.extend(bucket(&file.path));
        let Some(text) = file.text() else {
            continue;
        };
        problems.extend(desk(&file.path, &text));
        if file.is_rust() {
            problems.extend(undocumented(&file.path, &text));
            problems.extend(too_long(&file.path, text.lines().count(), LONGER));
        }
    }
    for (path, _) in LONGER {
        if !files.iter().any(|file| file.path == *path) {
            problems.push(format!("{path}: is gone; take it off the list in names.rs"));
        }
    }
    expect_none(problems);
}

#[test]
fn a_bucket_is_found() {
    for path in [
        "crates/core/src/utils.rs",
        "crates/x/src/types/mod.rs",
        "crates/common/src/lib.rs",
    ] {
        assert!(bucket(path).is_some(), "{path}");
    }
    for path in [
        "crates/core/src/stats.rs",
        "crates/core/src/commonwealth.rs",
    ] {
        assert!(bucket(path).is_none(), "{path}");
    }
}

#[test]
fn a_missing_module_doc_is_found() {
    for source in [
        "use std::fmt;",
        "",
        "// A comment.",
        "//!",
        "//!   \nuse x;",
        "/// An item.",
    ] {
        assert!(undocumented("x.rs", source).is_some(), "{source:?}");
    }
    assert!(undocumented("x.rs", "\n//! What it is.\n").is_none());
}

#[test]
fn a_long_file_is_found_and_a_listed_one_may_only_shrink() {
    let listed = &[("old.rs", 700)];
    assert!(too_long("new.rs", 601, listed).is_some());
    assert!(too_long("new.rs", 600, listed).is_none());
    assert!(too_long("old.rs", 701, listed).is_some());
    assert!(too_long("old.rs", 700, listed).is_none());
    assert!(too_long("old.rs", 600, listed).is_some());
}

#[test]
fn a_desk_is_found() {
    assert!(desk("x", concat!("see /ho", "me/ada/notes")).is_some());
    assert!(desk("x", concat!("\"/ro", "ot/x\"")).is_some());
    assert!(desk("x", concat!("target/wo", "rk/x and https://a.example/x")).is_none());
}
