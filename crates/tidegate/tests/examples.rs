//! Every example is run, ends by itself, and prints what its head promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program cargo made of an example. `cargo test` makes them together with this test.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    let source = source(name);
    let made = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    assert!(
        made(&program) >= made(&source),
        "{} is missing or older than {}: run `cargo test -p tidegate`, or first `cargo build -p tidegate --examples`",
        program.display(),
        source.display(),
    );
    program
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn source(name: &str) -> PathBuf {
    folder().join(name).with_extension("rs")
}

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// Runs an example and finds each of `lines` in what it prints, in this order.
fn check(name: &str, lines: &[&str]) {
    check_with(&mut Command::new(program(name)), lines);
}

fn check_with(command: &mut Command, lines: &[&str]) {
    let (output, text) = run(command);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed: {words}\n{text}"
    );
    let mut rest = &text[..];
    for line in lines {
        let Some(at) = rest.find(line) else {
            panic!("{command:?} did not print {line:?} where it belongs:\n{text}");
        };
        rest = &rest[at + line.len()..];
    }
}

#[test]
fn write_through() {
    let lines = ["durable in the Store", "b\"paid\"", "from the Near cache"];
    check("write_through", &lines);
}

#[cfg(feature = "journal")]
#[test]
fn write_back() {
    let lines = [
        "100 writes acknowledged",
        "in the store: None",
        "a reader sees: Some(b\"page 100\")",
        "1 row for 100 writes",
        "in the store: b\"page 100\"",
        "nothing left: true",
    ];
    check("write_back", &lines);
}

#[test]
fn write_around() {
    let lines = [
        "1000 rows written, 0 entries in memory",
        "first read from the Store",
        "second read from the Near cache",
        "the copy is gone: absent",
        "Some(b\"seen again\")",
    ];
    check("write_around", &lines);
}

#[test]
fn read_only() {
    let price = "price:tea is Some(b\"3.20\")";
    check("read_only", &[price, "takes no writes", price]);
}

#[test]
fn cache_only() {
    check(
        "cache_only",
        &["now: Some", "25 ms later: None", "20000 written"],
    );
}

#[cfg(feature = "journal")]
#[test]
fn hybrid() {
    let lines = [
        "write-through acknowledged by the Store, now clean",
        "write-back    acknowledged by the Journal, now dirty",
        "write-around  acknowledged by the Store, now absent",
        "class default  write-through",
        "nothing left: true",
    ];
    check("hybrid", &lines);
}

#[test]
fn typed_values() {
    let lines = [
        "{\\\"customer\\\":\\\"Ada\\\"",
        "\\x82\\xa8customer",
        "is an error",
    ];
    check("typed_values", &lines);
}

#[test]
fn custom_store() {
    check(
        "custom_store",
        &["from the Store: Some(b\"hello from a store of my own\")"],
    );
}

#[test]
fn store_memory() {
    check(
        "store_memory",
        &["first run finds None", "hello from the first run"],
    );
}

#[cfg(feature = "sqlite")]
#[test]
fn store_sqlite() {
    check(
        "store_sqlite",
        &["first run finds None", "second run finds Some(b\"paid\")"],
    );
}

#[cfg(feature = "postgres")]
#[test]
fn store_postgres() {
    let (output, _) = run(Command::new(program("store_postgres")).env_remove("DATABASE_URL"));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("set DATABASE_URL"));

    let server = tidegate_testkit::servers::Postgres::shared();
    let url = server.url(&server.fresh_database());
    let mut example = Command::new(program("store_postgres"));
    example.env("DATABASE_URL", url);
    check_with(&mut example, &["before: None", "committed as version"]);
    check_with(
        &mut example,
        &["before: Some(b\"paid\")", "committed as version"],
    );
}

#[test]
fn every_example_is_run_here() {
    let tests = include_str!("examples.rs");
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            tests.contains(&format!("fn {name}()")),
            "no test runs the example {name}"
        );
    }
}
