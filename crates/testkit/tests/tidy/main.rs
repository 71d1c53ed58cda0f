//! The shape of the tree, held by tests: who may know whom, names, sizes, module docs, papers that speak of
//! what is there, licences and duplicate dependencies. Each rule is a function over text with a test that
//! proves it fails on a bad example, and one test that applies it to the tree.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

mod arrows;
mod licences;
mod names;
mod papers;
mod source;
mod tree;

/// Fails with all problems at once, so that they can be mended at once.
fn expect_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}
