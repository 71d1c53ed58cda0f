//! Papers speak of what is there: every path and every test they name exists, and every promise names the
//! test that holds it.

use super::expect_none;
use super::tree;

const PAPERS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "GUARANTEES.md",
    "GLOSSARY.md",
    "CHANGELOG.md",
];

/// What a paper may be held against.
trait World {
    /// The text of the file at this path, if it is one; folders have none but exist.
    fn text(&self, path: &str) -> Option<String>;
    fn exists(&self, path: &str) -> bool;
}

struct Tree;

impl World for Tree {
    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(tree::root().join(path)).ok()
    }

    fn exists(&self, path: &str) -> bool {
        tree::root().join(path).exists()
    }
}

/// The words of a paper in backticks, code blocks left out, and the targets of its links.
fn words(paper: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in paper.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        if in_block {
            continue;
        }
        found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        for link in line.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// True for what can only be meant as a path of this tree.
fn is_path(word: &str) -> bool {
    const ENDINGS: &[&str] = &[".rs", ".md", ".py", ".sql", ".wire", ".toml"];
    let plain = !word.contains([' ', '*', '<', '{', ':']);
    let ends = ENDINGS.iter().any(|ending| word.ends_with(ending));
    plain && (word.starts_with("crates/") || word.contains('/') && ends)
}

/// What is wrong with one word.
fn check_word(world: &impl World, word: &str) -> Option<String> {
    if let Some((path, test)) = word
        .split_once("::")
        .filter(|(path, _)| path.ends_with(".rs"))
    {
        let Some(text) = world.text(path) else {
            return Some(format!("there is no {path}"));
        };
        let written = format!("fn {test}(");
        return (!text.contains(&written)).then(|| format!("{path} has no test {test}"));
    }
    (is_path(word) && !world.exists(word)).then(|| format!("there is no {word}"))
}

/// Rows of tables whose last column is headed `test`, that name none.
fn untested(paper: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut in_table = false;
    for line in paper.lines().map(str::trim) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let last = cells.last().copied().unwrap_or_default();
        if !line.starts_with('|') {
            in_table = false;
        } else if last == "test" {
            in_table = true;
        } else if in_table && !last.starts_with("---") && !last.contains(".rs::") {
            problems.push(format!("this promise names no test: {line}"));
        }
    }
    problems
}

#[test]
fn papers_speak_of_what_is_there() {
    let mut problems = Vec::new();
    for name in PAPERS {
        let paper = tree::read(name);
        for word in words(&paper) {
            problems.extend(check_word(&Tree, &word).map(|problem| format!("{name}: {problem}")));
        }
        problems.extend(
            untested(&paper)
                .into_iter()
                .map(|problem| format!("{name}: {problem}")),
        );
    }
    assert!(!untested_tables(&tree::read("GUARANTEES.md")).is_empty());
    expect_none(problems);
}

/// The headers of tables that name tests.
fn untested_tables(paper: &str) -> Vec<&str> {
    paper
        .lines()
        .filter(|line| line.trim_end().ends_with("| test |"))
        .collect()
}

#[cfg(test)]
struct OneFile;

#[cfg(test)]
impl World for OneFile {
    fn text(&self, path: &str) -> Option<String> {
        (path == "crates/a/tests/b.rs").then(|| "#[test]\nfn it_holds() {}".into())
    }

    fn exists(&self, path: &str) -> bool {
        ["crates/a/tests/b.rs", "crates/a"].contains(&path)
    }
}

#[test]
fn a_name_of_nothing_is_found() {
    let check = |paper: &str| {
        words(paper)
            .iter()
            .filter_map(|word| check_word(&OneFile, word))
            .count()
    };
    assert_eq!(
        check("see `crates/a/tests/b.rs` and `crates/a`, `a::b`, `SET key value`"),
        0
    );
    assert_eq!(check("held by `crates/a/tests/b.rs::it_holds`"), 0);
    assert_eq!(check("held by `crates/a/tests/b.rs::it_does_not`"), 1);
    assert_eq!(check("held by `crates/a/tests/c.rs::it_holds`"), 1);
    assert_eq!(
        check("see `crates/z` and [that](docs/x.md) and [this](https://a.example/x.md)"),
        2
    );
    assert_eq!(check("```\ncrates/z/x.rs `crates/z`\n```"), 0);
}

#[test]
fn a_promise_without_a_test_is_found() {
    let row =
        |last: &str| format!("| what | test |\n|---|---|\n| it holds | {last} |\n\ntext | more\n");
    assert_eq!(untested(&row("`crates/a/tests/b.rs::it_holds`")).len(), 0);
    assert_eq!(untested(&row("")).len(), 1);
    assert_eq!(untested(&row("soon")).len(), 1);
    assert_eq!(
        untested("| what | note |\n|---|---|\n| it holds | |\n").len(),
        0
    );
}
