//! Conversations held with a real Redis and with tidegate: the replies must be equal.
//!
//! The conversations are the files in `wire/scenarios`; `wire/README.md` says how they are written. Each is also held
//! with two Redis servers, which shows that the file itself asks for nothing that depends on time or chance.

#[path = "wire/conversation.rs"]
mod conversation;
#[path = "wire/scenario.rs"]
mod scenario;
#[path = "wire/tidegate.rs"]
mod tidegate;

use conversation::hold;
use scenario::Scenario;
use tidegate::Tidegate;
use tidegate_testkit::servers::Redis;

macro_rules! scenarios {
    ($($name:ident)*) => {
        const SCENARIOS: &[&str] = &[$(stringify!($name)),*];

        mod tidegate_answers_as_redis {
            $(#[test] fn $name() { super::tidegate_answers_as_redis(stringify!($name)); })*
        }

        mod redis_answers_as_redis {
            $(#[test] fn $name() { super::redis_answers_as_redis(stringify!($name)); })*
        }
    };
}

scenarios! {
    connection
    hello
    inline
    pipelining
    protocol_errors
    unknown
    strings
    set_options
    getex
    counters
    keys
    expire
    expire_options
    scan
}

fn tidegate_answers_as_redis(name: &str) {
    let scenario = Scenario::read(name);
    let (redis, tidegate) = (Redis::start(), Tidegate::start());
    let differences = hold(
        &scenario,
        ("redis", redis.port()),
        ("tidegate", tidegate.port()),
    );
    assert!(
        differences.is_empty(),
        "{} replies differ\n\n{}\n{}",
        differences.len(),
        differences.join("\n"),
        tidegate.words()
    );
}

fn redis_answers_as_redis(name: &str) {
    let scenario = Scenario::read(name);
    let (one, other) = (Redis::start(), Redis::start());
    let differences = hold(
        &scenario,
        ("redis", one.port()),
        ("other redis", other.port()),
    );
    assert!(
        differences.is_empty(),
        "the scenario is not steady\n\n{}",
        differences.join("\n")
    );
}

#[test]
fn every_scenario_file_is_listed() {
    let mut files: Vec<String> = std::fs::read_dir(scenario::folder())
        .expect("the scenario folder")
        .map(|entry| entry.expect("a file").path())
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    files.sort();
    let mut listed: Vec<&str> = SCENARIOS.to_vec();
    listed.sort_unstable();
    assert_eq!(files, listed);
}

/// A scenario that asks for something different on each server must be reported, or green would mean nothing.
#[test]
fn a_difference_is_reported() {
    let (one, other) = (Redis::start(), Redis::start());
    let before = Scenario::parse("before", "> SET a 1");
    assert!(hold(&before, ("one", one.port()), ("one again", one.port())).is_empty());
    let lines = [
        "> GET a",
        "within 0 > EXISTS a",
        "| GET a",
        "scan COUNT 10",
        "raw 1 \"GET a\\n\"",
    ];
    for line in lines {
        let scenario = Scenario::parse("difference", line);
        let differences = hold(&scenario, ("one", one.port()), ("other", other.port()));
        assert_eq!(differences.len(), 1, "{line}: {differences:?}");
        assert!(
            differences[0].contains("difference.wire:1"),
            "{differences:?}"
        );
    }
}
