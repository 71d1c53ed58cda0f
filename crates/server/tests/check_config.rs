//! `tidegate check-config`: the meaning on stdout, or every problem with its line on stderr.

mod support;

use support::{Folder, run};

fn check(text: &str) -> (support::Ended, String) {
    let folder = Folder::new();
    let path = folder.write("tidegate.toml", text);
    let path = path.display().to_string();
    (run(&["check-config", &path]), path)
}

#[test]
fn a_sound_configuration_is_shown_as_a_table() {
    let (ended, _) = check(
        "
        [store]
        url = 'postgres://shop:secret@db/shop'
        [[class]]
        name = 'session'
        keys = 'session:*'
        strategy = 'write-back'
        ttl = '30m'
        [[class]]
        name = 'scratch'
        keys = 'scratch:*'
        strategy = 'cache-only'
        ",
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stderr, "");
    let expected = "\
listen   127.0.0.1:6380
store    postgres://shop:***@db/shop
journal  tidegate-data/journal
near     256MiB

CLASS    KEYS       STRATEGY       TABLE    TTL  DURABILITY
session  session:*  write-back     session  30m  journal
scratch  scratch:*  cache-only     -        -    memory
default  *          write-through  entries  -    store
";
    assert_eq!(ended.stdout, expected);
}

#[test]
fn a_shared_cache_is_shown_without_its_password() {
    let (ended, _) = check(
        "
        [store]
        url = 'postgres://shop:secret@db/shop'
        [shared]
        url = ['redis://shop:secret@one:6379', 'redis://two:6379']
        prefix = 'shop'
        [[class]]
        name = 'session'
        keys = 'session:*'
        strategy = 'write-back'
        durability = 'both'
        [[class]]
        name = 'view'
        keys = 'view:*'
        level = 'bounded(200ms)'
        [[class]]
        name = 'scratch'
        keys = 'scratch:*'
        strategy = 'cache-only'
        ",
    );
    assert_eq!(ended.code, 0, "{ended:?}");
    let table = "
CLASS    KEYS       STRATEGY       TABLE    TTL  DURABILITY  LEVEL
session  session:*  write-back     session  -    both        linearizable
view     view:*     write-through  view     -    store       bounded(200ms)
scratch  scratch:*  cache-only     -        -    memory      each node its own
default  *          write-through  entries  -    store       linearizable
";
    assert!(ended.stdout.ends_with(table), "{}", ended.stdout);
    let line = "\nshared   redis://shop:***@one:6379, redis://two:6379, prefix shop, 256 shards\n";
    assert!(ended.stdout.contains(line), "{ended:?}");
    assert!(!ended.stdout.contains("secret"), "{ended:?}");
}

#[test]
fn every_problem_is_shown_with_its_line() {
    let (ended, path) = check(
        "[server]
listen = '0.0.0.0:6380'
adminn = '127.0.0.1:8380'
[[class]]
name = 'order'
keys = 'order:*'
linger = '50ms'
ttl = 30
",
    );
    assert_eq!(ended.code, 3);
    assert_eq!(ended.stdout, "");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 5, "{ended:?}");
    for (line, start) in lines.iter().zip([
        format!("{path}:2: server.listen: "),
        format!("{path}:3: server.adminn: unknown key"),
        format!("{path}:7: class[1].linger: belongs to write-back classes"),
        format!("{path}:8: class[1].ttl: "),
        "4 problems".to_owned(),
    ]) {
        assert!(line.starts_with(&start), "{line}\n{start}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let ended = run(&["check-config", "/nonexistent/tidegate.toml"]);
    assert_eq!(ended.code, 3);
    assert!(
        ended
            .stderr
            .starts_with("/nonexistent/tidegate.toml: cannot be read"),
        "{ended:?}"
    );
}

#[test]
fn serve_refuses_what_check_config_refuses() {
    let folder = Folder::new();
    let path = folder.write("tidegate.toml", "[near]\ncapacity = 'much'\n");
    let path = path.to_str().unwrap();
    let ended = run(&["serve", "--listen", "127.0.0.1:0", "--config", path]);
    assert_eq!(ended.code, 3);
    assert!(
        ended
            .stderr
            .starts_with(&format!("{path}:2: near.capacity: 'much' is no size")),
        "{ended:?}"
    );
}

#[test]
fn a_table_that_tidegate_keeps_for_itself_is_refused() {
    for table in ["tidegate_meta", "tidegate_tombstone", "tidegate_version"] {
        let (ended, path) = check(&format!(
            "[[class]]\nname = 'order'\nkeys = 'order:*'\ntable = '{table}'\n"
        ));
        assert_eq!(ended.code, 3, "{ended:?}");
        let start = format!("{path}:4: class[1].table: '{table}' is a table that tidegate keeps");
        assert!(ended.stderr.starts_with(&start), "{ended:?}");
    }
}

#[test]
fn the_reference_is_sound() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/reference.toml");
    assert_eq!(run(&["check-config", reference]).code, 0);
}
