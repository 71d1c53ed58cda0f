//! The reference file against the parser, and every contradiction by its key and line.

mod shared;

use std::collections::BTreeSet;

use super::section::Sheet;
use super::*;

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET_URL" => Some("postgres://u:secret@h/db".to_owned()),
        "DATABASE_URL" => Some("postgres://h/db".to_owned()),
        "SHARED_URL" => Some("redis://a:1, redis://u:secret@b:2".to_owned()),
        "SHARED_PASSWORD" => Some("top secret".to_owned()),
        _ => None,
    }
}

fn load_text(text: &str) -> Result<Config, Vec<Problem>> {
    parse(text, &Overrides::default(), &environment)
}

/// A configuration in full, for comparison.
fn meaning(text: &str) -> String {
    match load_text(text) {
        Ok(config) => format!("{config:#?}"),
        Err(problems) => panic!("{problems:#?}\n{text}"),
    }
}

/// Whether a line of the reference is a key or a table that is commented out, rather than prose.
fn is_commented_out(line: &str) -> bool {
    line.strip_prefix('#')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
}

/// The store of the reference in full: a shared cache contradicts the default one.
const STORE: &str = "url = \"postgres://h/db\" # example";

/// The reference with everything that is commented out brought in, but for what stands there in place of another key.
fn in_full() -> Vec<String> {
    let line = |line: &str| match line {
        "#url = \"sqlite:store.db\"" => STORE.to_owned(),
        line if is_commented_out(line) => line[1..].to_owned(),
        line => line.to_owned(),
    };
    let instead = |line: &String| line.starts_with("url_env") || line.starts_with("password_");
    let lines = REFERENCE.lines().map(line);
    lines.filter(|line| !instead(line)).collect()
}

#[test]
fn the_reference_as_it_is_means_the_default() {
    assert_eq!(meaning(REFERENCE), meaning(""));
}

#[test]
fn the_reference_in_full_has_no_problem() {
    let config = load_text(&in_full().join("\n")).unwrap();
    assert_eq!(config.classes.len(), 2);
    assert_eq!(config.lanes, Some(4));
    let with_variable = in_full()
        .join("\n")
        .replace(STORE, "url_env = \"DATABASE_URL\"");
    assert_eq!(
        load_text(&with_variable).unwrap().store_url,
        config.store_url
    );
    let embedded = "[store]\nurl = \"sqlite:store.db\"";
    assert_eq!(meaning(embedded), meaning(""));
    assert!(REFERENCE.contains("#url = \"sqlite:store.db\""));
}

/// Leaving out a line that is no example changes nothing, so what it shows is the default.
#[test]
fn values_shown_in_the_reference_are_the_defaults() {
    let lines = in_full();
    let full = meaning(&lines.join("\n"));
    let mut checked = 0;
    for (at, line) in lines.iter().enumerate() {
        let is_key = line.starts_with(|c: char| c.is_ascii_lowercase());
        if !is_key || line.contains("# example") {
            continue;
        }
        let mut without = lines.clone();
        without[at].clear();
        assert_eq!(
            meaning(&without.join("\n")),
            full,
            "line {}: {line}",
            at + 1
        );
        checked += 1;
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn the_reference_and_the_parser_know_the_same_keys() {
    let text = in_full().join("\n");
    let sheet = Sheet::new(&text);
    written::read(&text, &sheet);
    let parser = sheet.known();

    let mut reference = BTreeSet::new();
    let mut table = String::new();
    for line in REFERENCE.lines() {
        let line = if is_commented_out(line) {
            &line[1..]
        } else {
            line
        };
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']']).to_owned();
            reference.insert(table.clone());
        } else if line.starts_with(|c: char| c.is_ascii_lowercase()) {
            let key = line.split(' ').next().unwrap();
            let path = if table.is_empty() {
                key.to_owned()
            } else {
                format!("{table}.{key}")
            };
            reference.insert(path);
        }
    }
    assert_eq!(parser, reference);
}

/// Each problem as `line key`, for texts that must be refused.
fn problems(text: &str) -> Vec<String> {
    match load_text(text) {
        Ok(_) => panic!("not refused:\n{text}"),
        Err(problems) => problems
            .iter()
            .map(|p| format!("{} {}", p.line, p.key))
            .collect(),
    }
}

/// The problems of a class `a` with these keys; the first of them is in line 4.
fn class_problems(keys: &str) -> Vec<String> {
    problems(&format!("[[class]]\nname = \"a\"\nkeys = \"a:*\"\n{keys}"))
}

#[test]
fn contradictions_in_a_class_are_refused_with_key_and_line() {
    for (keys, expected) in [
        ("linger = \"1s\"", "4 class[1].linger"),
        ("strategy = \"write-around\"\nbatch = 1", "5 class[1].batch"),
        ("durability = \"journal\"", "4 class[1].durability"),
        (
            "strategy = \"read-only\"\nwhen_full = \"block\"",
            "5 class[1].when_full",
        ),
        (
            "strategy = \"cache-only\"\ntable = \"t\"",
            "5 class[1].table",
        ),
        (
            "strategy = \"cache-only\"\ncreate_table = true",
            "5 class[1].create_table",
        ),
        (
            "strategy = \"cache-only\"\ntrigger = true",
            "5 class[1].trigger",
        ),
        ("trigger = \"yes\"", "4 class[1].trigger"),
        (
            "strategy = \"cache-only\"\nload_timeout = \"1s\"",
            "5 class[1].load_timeout",
        ),
        (
            "strategy = \"cache-only\"\nnegative_ttl = \"1s\"",
            "5 class[1].negative_ttl",
        ),
        ("strategy = \"write_through\"", "4 class[1].strategy"),
        (
            "strategy = \"write-back\"\ndurability = \"store\"",
            "5 class[1].durability",
        ),
        (
            "strategy = \"write-back\"\nwhen_full = \"drop\"",
            "5 class[1].when_full",
        ),
        (
            "strategy = \"write-back\"\nwhen_full = \"reject\"\nblock_timeout = \"1s\"",
            "6 class[1].block_timeout",
        ),
        (
            "strategy = \"write-back\"\nwhen_full = \"write-through\"\nblock_timeout = \"1s\"",
            "6 class[1].block_timeout",
        ),
        (
            "strategy = \"write-back\"\nwhen_journal_fails = \"block\"",
            "5 class[1].when_journal_fails",
        ),
        (
            "strategy = \"write-back\"\nwhen_journal_fails = \"refuse\"\ndurability = \"memory\"",
            "5 class[1].when_journal_fails",
        ),
        (
            "strategy = \"write-back\"\nconflict = \"merge\"",
            "5 class[1].conflict",
        ),
        (
            "strategy = \"write-back\"\nconflict = \"newest\"",
            "5 class[1].conflict",
        ),
        (
            "strategy = \"write-back\"\ndelta = true\nconflict = \"store-wins\"",
            "6 class[1].conflict",
        ),
        ("delta = true", "4 class[1].delta"),
        (
            "strategy = \"write-back\"\ndirty_entries_max = 0",
            "5 class[1].dirty_entries_max",
        ),
        (
            "strategy = \"write-back\"\ndirty_age_max = \"0s\"",
            "5 class[1].dirty_age_max",
        ),
        (
            "strategy = \"write-back\"\nlinger = \"1m\"\ndirty_age_max = \"1m\"",
            "6 class[1].dirty_age_max",
        ),
        ("strategy = \"write-back\"\nbatch = 0", "5 class[1].batch"),
        (
            "strategy = \"write-back\"\nbatch_bytes = 0",
            "5 class[1].batch_bytes",
        ),
        (
            "strategy = \"write-back\"\ndirty_max = 5",
            "5 class[1].dirty_max",
        ),
        ("ttl = \"0s\"", "4 class[1].ttl"),
        ("ttl = 30", "4 class[1].ttl"),
        ("ttl_jitter = 0.5", "4 class[1].ttl_jitter"),
        ("ttl = \"1s\"\nttl_jitter = 1.5", "5 class[1].ttl_jitter"),
        ("stale_if_error = \"1m\"", "4 class[1].stale_if_error"),
        ("load_timeout = \"0s\"", "4 class[1].load_timeout"),
        ("table = \"\"", "4 class[1].table"),
        ("value_type = \"blob\"", "4 class[1].value_type"),
        (
            "create_table = false\nvalue_type = \"text\"",
            "5 class[1].value_type",
        ),
        (
            "[class.columns]\nkey = \"value\"",
            "4 class[1].columns.value",
        ),
        (
            "[class.columns]\nvalue = \"key\"",
            "5 class[1].columns.value",
        ),
        (
            "[class.columns]\nversion = false",
            "5 class[1].columns.version",
        ),
        (
            "[class.columns]\nexpires_at = \"\"",
            "5 class[1].columns.expires_at",
        ),
        ("columns = 5", "4 class[1].columns"),
        ("codec = \"json\"", "4 class[1].codec"),
    ] {
        assert_eq!(class_problems(keys), [expected], "{keys}");
    }
}

#[test]
fn classes_that_collide_are_refused() {
    let class = |name: &str, keys: &str, more: &str| {
        format!("[[class]]\nname = \"{name}\"\nkeys = \"{keys}\"\n{more}\n")
    };
    for (second, expected) in [
        (class("a", "b:*", ""), "6 class[2].name"),
        (class("b", "a:*", ""), "7 class[2].keys"),
        (class("b", "*", ""), "7 class[2].keys"),
        (class("b", "", ""), "7 class[2].keys"),
        (class("default", "d:*", ""), "7 class[2].keys"),
        (class("no good", "d:*", ""), "6 class[2].name"),
        (
            class("b", "b:*", "table = \"a\"\ncreate_table = false"),
            "8 class[2].table",
        ),
        (
            class("b", "b:*", "table = \"entries\"\nvalue_type = \"bytes\""),
            "8 class[2].table",
        ),
        (
            class("b", "b:*", "table = \"tidegate_meta\""),
            "8 class[2].table",
        ),
        (
            class("b", "b:*", "table = \"tidegate_tombstone\""),
            "8 class[2].table",
        ),
        (
            class("b", "b:*", "table = \"Tidegate_Version\""),
            "8 class[2].table",
        ),
        (
            class("b", "b:*", "table = \"tidegate_session\""),
            "8 class[2].table",
        ),
        (class("tidegate_meta", "b:*", ""), "6 class[2].name"),
        ("[[class]]\nkeys = \"b:*\"".to_owned(), "5 class[2].name"),
        ("[[class]]\nname = \"b\"".to_owned(), "5 class[2].keys"),
    ] {
        let text = class("a", "a:*", "") + &second;
        assert_eq!(problems(&text), [expected], "{text}");
    }
    let shared = class("a", "a:*", "") + &class("b", "b:*", "table = \"a\"");
    assert!(
        load_text(&shared).is_ok(),
        "classes may share a table that they see alike"
    );
}

#[test]
fn unknown_keys_and_wrong_types_are_refused() {
    for (text, expected) in [
        ("shared = 1", "1 shared"),
        ("[shared]\nurl = \"redis://x\"", "1 shared"),
        (
            "[shared]\nurl = \"redis://x\"\n[store]\nurl = \"memory:\"",
            "1 shared",
        ),
        ("[server]\nadmin = \"0.0.0.0:8380\"", "2 server.admin"),
        ("[server]\nadmin = \"127.0.0.1:6380\"", "2 server.admin"),
        ("[server]\nadmin = 8380", "2 server.admin"),
        ("[server]\ndrain_timeout = 5", "2 server.drain_timeout"),
        ("[server]\nlisten = 6380", "2 server.listen"),
        ("[server]\nlisten = \"nowhere\"", "2 server.listen"),
        ("[server]\nlisten = \"0.0.0.0:6380\"", "2 server.listen"),
        ("[server]\nconnections_max = 0", "2 server.connections_max"),
        ("[server]\nconnections_max = -1", "2 server.connections_max"),
        ("[server]\npipeline_max = 0", "2 server.pipeline_max"),
        ("[server]\nrequest_max = \"5GiB\"", "2 server.request_max"),
        ("[server]\noutput_max = 1", "2 server.output_max"),
        ("[server]\nidle_timeout = \"soon\"", "2 server.idle_timeout"),
        ("\n[near]\ncapacity = \"1KiB\"", "3 near.capacity"),
        ("[near]\ncapacity = true", "2 near.capacity"),
        ("near = 5", "1 near"),
        ("class = 5", "1 class"),
        ("[store]\nurl = \"mysql://h\"", "2 store.url"),
        ("[store]\nurl_env = \"NOT_SET\"", "2 store.url_env"),
        (
            "[store]\nurl = \"memory:\"\nurl_env = \"SECRET_URL\"",
            "3 store.url_env",
        ),
        ("[store]\nlanes = 0", "2 store.lanes"),
        ("[journal]\npath = \"\"", "2 journal.path"),
        ("[journal]\nsegment = \"1KiB\"", "2 journal.segment"),
        ("[journal]\nsegment = 5000", "2 journal.segment"),
        (
            "[journal]\nsegment = \"1GiB\"\nsize_max = \"1GiB\"",
            "3 journal.size_max",
        ),
        ("[journal]\nsize_max = \"100MiB\"", "2 journal.size_max"),
        ("data_dir = \"\"", "1 data_dir"),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn every_problem_is_reported_in_the_order_of_lines() {
    let text = "\
data_dirr = 'x'
[server]
listen = '0.0.0.0:1'
[[class]]
name = 'a'
keys = 'a:*'
linger = '1s'
ttl = '0s'
[[class]]
name = 'a'
keys = 'a:*'
";
    assert_eq!(
        problems(text),
        [
            "1 data_dirr",
            "3 server.listen",
            "7 class[1].linger",
            "8 class[1].ttl",
            "10 class[2].name"
        ]
    );
}

#[test]
fn what_is_no_toml_is_told_by_its_line() {
    assert_eq!(problems("[server]\nlisten = \n"), ["2 "]);
    assert!(problems("[server\n")[0].starts_with("1 "));
    assert!(
        problems("a = 1\na = 2\n")
            .iter()
            .any(|p| p.starts_with("2 "))
    );
}

#[test]
fn a_slip_is_answered_with_the_right_word() {
    let problems = load_text("[server]\nlistn = 'x'").unwrap_err();
    assert!(problems[0].message.contains("'listen'"), "{}", problems[0]);
}

#[test]
fn a_remote_address_is_taken_if_it_is_asked_for() {
    let config = load_text("[server]\nlisten = '0.0.0.0:1'\nallow_remote = true").unwrap();
    assert!(config.server.listen.ip().is_unspecified());
}

#[test]
fn no_problem_and_no_printed_configuration_holds_a_password() {
    let config = load_text("[store]\nurl_env = 'SECRET_URL'").unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    assert_eq!(config.store_url.reveal(), "postgres://u:secret@h/db");
    let problems = load_text("[store]\nurl = 'mysql://u:secret@h'").unwrap_err();
    assert!(!problems[0].to_string().contains("secret"));
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        listen: Some("127.0.0.1:1".parse().unwrap()),
        data_dir: Some("elsewhere".into()),
    };
    let text = "data_dir = 'here'\n[server]\nlisten = '127.0.0.1:2'";
    let config = parse(text, &overrides, &environment).unwrap();
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.store_url.reveal(), "sqlite:elsewhere/store.db");
    assert_eq!(config.journal_path, Path::new("elsewhere/journal"));
    let remote = Overrides {
        listen: Some("0.0.0.0:1".parse().unwrap()),
        ..overrides
    };
    assert!(parse("", &remote, &environment).is_err());
}
