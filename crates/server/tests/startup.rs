//! What a person meets first: starting, what is printed, data that is still there after a restart, clear refusals.

mod support;

use std::os::unix::fs::PermissionsExt;

use support::{Folder, bulk, field, integer, ok, run};
use tidegate_resp::Reply;

#[test]
fn the_embedded_default_says_where_it_listens_and_what_to_try() {
    let folder = Folder::new();
    let server = folder.serve();
    let data = folder.data();
    let words = server.words().to_owned();
    assert!(words.starts_with(&format!(
        "tidegate {} listening on 127.0.0.1:",
        env!("CARGO_PKG_VERSION")
    )));
    assert_ne!(server.port(), 0);
    for expected in [
        format!("sqlite:{}/store.db", data.display()),
        format!("{}/journal", data.display()),
        "default  *     write-through  entries".to_owned(),
        format!("redis-cli -p {} SET greeting hello", server.port()),
    ] {
        assert!(words.contains(&expected), "{expected}\n{words}");
    }
    let Reply::Bulk(figures) = server.connect().ask("INFO writeback") else {
        panic!("INFO is a text");
    };
    let figures = String::from_utf8(figures.to_vec()).unwrap();
    for idle in ["flush_rate_per_sec:0.0\r\n", "journal_failed:0\r\n"] {
        assert!(figures.contains(idle), "{idle}\n{figures}");
    }
    assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(server.terminate(), 0);
}

#[test]
fn data_is_still_there_after_a_restart() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    client.expect("SET greeting hello", ok());
    client.expect("SET short v PX 1", ok());
    client.expect("INCRBY counter 41", integer(41));
    client.expect("SET gone x", ok());
    client.expect("DEL gone", integer(1));
    assert_eq!(server.terminate(), 0);

    let server = folder.serve();
    let mut client = server.connect();
    client.expect("GET greeting", bulk("hello"));
    client.expect("GET short", Reply::Null);
    client.expect("INCR counter", integer(42));
    client.expect("EXISTS gone greeting counter", integer(2));
    client.expect("DBSIZE", integer(2));
    // Write-through: in the store when it was acknowledged, so a kill loses nothing.
    client.expect("SET late 1", ok());
    server.kill9();
    let mut client = folder.serve().connect_kept();
    client.0.expect("GET late", bulk("1"));
}

/// Keeps the server for as long as its client.
trait ConnectKept {
    fn connect_kept(self) -> (support::Client, support::Server);
}

impl ConnectKept for support::Server {
    fn connect_kept(self) -> (support::Client, support::Server) {
        (self.connect(), self)
    }
}

#[test]
fn emptying_the_cache_never_empties_the_store() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    client.expect("MSET a 1 b 2", ok());
    client.expect("FLUSHALL", ok());
    client.expect("FLUSHDB ASYNC", ok());
    let state = field(&client.ask("TIDEGATE EXPLAIN a"), "state");
    assert_eq!(state, bulk("absent"));
    client.expect("MGET a b", Reply::Array(vec![bulk("1"), bulk("2")]));
    client.expect("TIDEGATE EVICT a b c", integer(2));
    client.expect("GET a", bulk("1"));
}

#[test]
fn classes_follow_their_strategies() {
    let folder = Folder::new();
    let server = folder.serve_config(
        "
        [[class]]
        name = 'session'
        keys = 'session:*'
        strategy = 'write-back'
        linger = '10m'
        [[class]]
        name = 'view'
        keys = 'view:*'
        strategy = 'write-around'
        ttl = '1m'
        [[class]]
        name = 'fact'
        keys = 'fact:*'
        strategy = 'read-only'
        [[class]]
        name = 'scratch'
        keys = 'scratch:*'
        strategy = 'cache-only'
        ",
    );
    let mut client = server.connect();
    let state = |client: &mut support::Client, key: &str| {
        field(&client.ask(&format!("TIDEGATE EXPLAIN {key}")), "state")
    };
    client.expect("SET session:1 a", ok());
    assert_eq!(state(&mut client, "session:1"), bulk("dirty"));
    let report = client.ask("TIDEGATE FLUSH TIMEOUT 20000");
    assert_eq!(field(&report, "left"), integer(0));
    assert_eq!(state(&mut client, "session:1"), bulk("clean"));

    client.expect("SET view:1 a", ok());
    assert_eq!(state(&mut client, "view:1"), bulk("absent"));
    client.expect("GET view:1", bulk("a"));
    assert_eq!(state(&mut client, "view:1"), bulk("clean"));

    let refused = support::error_text(&client.ask("SET fact:1 a"));
    assert!(
        refused.starts_with("READONLY ") && refused.contains("'fact'"),
        "{refused}"
    );
    client.expect("GET fact:1", Reply::Null);

    client.expect("SET scratch:1 a", ok());
    client.expect("GET scratch:1", bulk("a"));
    let about = client.ask("TIDEGATE CLASS scratch:1");
    assert_eq!(field(&about, "durability"), bulk("memory"));
}

#[test]
fn an_address_in_use_is_a_sentence_and_a_code() {
    let folder = Folder::new();
    let server = folder.serve();
    let address = format!("127.0.0.1:{}", server.port());
    let other = folder.path().join("other");
    let ended = run(&[
        "serve",
        "--listen",
        &address,
        "--data-dir",
        other.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 4);
    assert_eq!(ended.stdout, "");
    assert!(
        ended
            .stderr
            .contains(&format!("cannot listen on {address}: another program")),
        "{ended:?}"
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(
        !other.exists(),
        "nothing is made before the address is ours"
    );
}

#[test]
fn two_servers_cannot_share_a_folder() {
    let folder = Folder::new();
    let _server = folder.serve();
    let data = folder.data();
    let ended = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(ended.stderr.contains("journal"), "{ended:?}");
}

#[test]
fn an_address_for_everyone_is_refused_unless_asked_for() {
    let ended = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(ended.code, 3);
    assert!(
        ended.stderr.contains("no passwords") && ended.stderr.contains("allow_remote"),
        "{ended:?}"
    );
}

#[test]
fn a_store_that_cannot_be_opened_is_named_without_its_password() {
    let folder = Folder::new();
    let config = folder.write(
        "c.toml",
        "[store]\nurl = 'postgres://u:secret@127.0.0.1:1/db'\n",
    );
    let data = folder.data();
    let ended = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--config",
        config.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("store postgres://u:***@127.0.0.1:1/db"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("secret"), "{ended:?}");
}

#[test]
fn the_reference_can_be_printed_and_served() {
    let ended = run(&["reference"]);
    assert_eq!(ended.code, 0);
    assert_eq!(ended.stdout, include_str!("../reference.toml"));
    let folder = Folder::new();
    assert_eq!(folder.serve_config(&ended.stdout).terminate(), 0);
}

#[test]
fn the_help_is_a_first_page() {
    let ended = run(&["--help"]);
    assert_eq!(ended.code, 0);
    for word in ["serve", "check-config", "redis-cli", "Exit codes:"] {
        assert!(ended.stdout.contains(word), "{word}\n{}", ended.stdout);
    }
    assert_eq!(
        run(&["--version"]).stdout,
        format!("tidegate {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&["nonsense"]).code, 2);
}
