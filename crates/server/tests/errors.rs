//! What a client is told when the store does not do as it should: a first word to match, and never a value.

mod support;

use support::{Folder, bulk, error_text, ok};
use tidegate_resp::Reply;

#[test]
fn a_value_the_store_refuses_is_refused_by_name() {
    let folder = Folder::new();
    let server =
        folder.serve_config("[[class]]\nname = 'doc'\nkeys = 'doc:*'\nvalue_type = 'json'\n");
    let mut client = server.connect();
    client.expect("SET doc:1 [1]", ok());
    for line in [
        "SET doc:1 not-json",
        "GETSET doc:1 not-json",
        "APPEND doc:1 not-json",
        "MSET a 1 doc:1 not-json",
    ] {
        let text = error_text(&client.ask(line));
        assert!(text.starts_with("REFUSED "), "{line}: {text}");
        assert!(
            text.contains("doc:1") && !text.contains("not-json"),
            "{line}: {text}"
        );
        client.expect("GET doc:1", bulk("[1]"));
    }
    client.expect("FLUSHALL", ok());
    client.expect("GET doc:1", bulk("[1]"));
}

#[test]
fn a_store_that_is_away_is_unavailable_and_comes_back() {
    let folder = Folder::new();
    let server = folder.serve_config(
        "[store]\nurl = 'sqlite:store.db?busy_timeout=50ms'\n[[class]]\nname = 'back'\nkeys = 'back:*'\nstrategy = 'write-back'\n",
    );
    let mut client = server.connect();
    client.expect("SET k before", ok());
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.execute_batch("begin immediate").unwrap();
    for line in ["SET k while", "DEL k", "INCR n", "SET k while XX GET EX 5"] {
        let text = error_text(&client.ask(line));
        assert!(text.starts_with("UNAVAILABLE "), "{line}: {text}");
        assert!(!text.contains("while"), "{line}: {text}");
    }
    // Write-back goes on, and so do reads.
    client.expect("SET back:1 while", ok());
    client.expect("GET back:1", bulk("while"));
    client.expect("GET k", bulk("before"));
    drop(database);
    client.expect("SET k after", ok());
    client.expect("GET k", bulk("after"));
    let report = client.ask("TIDEGATE FLUSH TIMEOUT 20000");
    assert_eq!(support::field(&report, "left"), Reply::Integer(0));
}

#[test]
fn a_read_only_class_answers_every_write_alike() {
    let folder = Folder::new();
    let server =
        folder.serve_config("[[class]]\nname = 'fact'\nkeys = 'fact:*'\nstrategy = 'read-only'\n");
    let mut client = server.connect();
    for line in [
        "SET fact:1 v",
        "SETEX fact:1 10 v",
        "SETNX fact:1 v",
        "MSET a 1 fact:1 v",
        "GETSET fact:1 v",
        "APPEND fact:1 v",
        "INCR fact:1",
        "INCRBYFLOAT fact:1 1.5",
        "DEL fact:1",
        "GETDEL fact:1",
        "EXPIRE fact:1 10",
        "PERSIST fact:1",
    ] {
        let text = error_text(&client.ask(line));
        assert!(
            text.starts_with("READONLY the class takes no writes")
                && text.ends_with("class 'fact'"),
            "{line}: {text}"
        );
    }
    client.expect("GET fact:1", Reply::Null);
    client.expect("TTL fact:1", Reply::Integer(-2));
}

#[test]
fn a_transaction_is_refused_whole_and_changes_nothing() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    client.expect("SET a before", ok());
    client.send(&["MULTI", "SET a 1", "GET a", "NOSUCH", "EXEC", "GET a"]);
    let texts: Vec<String> = (0..5).map(|_| error_text(&client.read())).collect();
    assert!(
        texts[0].starts_with("ERR MULTI is not supported"),
        "{texts:?}"
    );
    assert!(
        texts[1..4].iter().all(|text| text.contains("not run")),
        "{texts:?}"
    );
    assert!(texts[4].starts_with("EXECABORT"), "{texts:?}");
    assert_eq!(client.read(), bulk("before"));
    client.send(&["MULTI", "SET a 1", "DISCARD", "SET a 2", "GET a"]);
    assert!(error_text(&client.read()).starts_with("ERR MULTI"));
    assert!(error_text(&client.read()).contains("not run"));
    assert_eq!(
        (client.read(), client.read(), client.read()),
        (ok(), ok(), bulk("2"))
    );
    client.send(&["MULTI", "RESET", "SET a 3", "GET a"]);
    client.read();
    assert_eq!(client.read(), Reply::Simple("RESET".into()));
    assert_eq!((client.read(), client.read()), (ok(), bulk("3")));
}
