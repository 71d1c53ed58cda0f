//! Writes that the store refuses, over the wire: kept, listed without their values, retried, edited, discarded.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use support::{Client, Folder, Server, bulk, error_text, field, integer, ok};
use tidegate_resp::Reply;

const CONFIG: &str = "
    [[class]]
    name = 'strict'
    keys = 'strict:*'
    strategy = 'write-back'
    linger = '1ms'
    [[class]]
    name = 'free'
    keys = 'free:*'
    strategy = 'write-back'
    linger = '1h'
";

/// A server whose table `strict` takes no value that begins with `bad`.
fn strict(folder: &Folder) -> Server {
    let server = folder.serve_config(CONFIG);
    for event in ["insert", "update"] {
        sql(
            folder,
            &format!(
                "create trigger if not exists strict_{event} before {event} on strict when new.value like 'bad%' \
                 begin select raise(abort, 'bad values are refused'); end"
            ),
        );
    }
    server
}

fn sql(folder: &Folder, statements: &str) {
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.busy_timeout(support::PATIENCE).unwrap();
    database.execute_batch(statements).unwrap();
}

fn row(folder: &Folder, key: &str) -> Option<String> {
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    let mut rows = database
        .prepare("select value from strict where key = ?1")
        .unwrap();
    rows.query_row([key], |row| row.get(0)).ok()
}

fn letters(client: &mut Client, options: &str) -> Vec<Reply> {
    match client.ask(&format!("TIDEGATE DEADLETTERS LIST{options}")) {
        Reply::Array(letters) => letters,
        other => panic!("{other:?}"),
    }
}

fn text(reply: Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn version(client: &mut Client, key: &str) -> String {
    text(field(
        &client.ask(&format!("TIDEGATE DEADLETTERS SHOW {key}")),
        "version",
    ))
}

/// Writes a value that is refused, and waits until it is.
fn refuse(client: &mut Client, key: &str, value: &str) {
    client.expect(&format!("SET {key} {value}"), ok());
    let report = client.ask("TIDEGATE FLUSH CLASS strict TIMEOUT 20000");
    assert_eq!(field(&report, "left"), integer(0));
}

#[test]
fn a_refused_write_is_kept_over_restarts_and_shown_without_its_value() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    refuse(&mut client, "strict:1", "bad-secret");
    let report = client.ask("TIDEGATE FLUSH");
    assert_eq!(field(&report, "parked"), integer(1));
    let Reply::Array(classes) = field(&report, "classes") else {
        panic!("{report:?}");
    };
    let class = classes
        .iter()
        .find(|class| field(class, "class") == bulk("strict"));
    assert_eq!(field(class.unwrap(), "parked"), integer(1));

    let list = letters(&mut client, "");
    assert_eq!(list.len(), 1);
    assert!(!format!("{list:?}").contains("secret"), "{list:?}");
    let letter = client.ask("TIDEGATE DEADLETTERS SHOW strict:1");
    assert!(!format!("{letter:?}").contains("secret"), "{letter:?}");
    for (name, value) in [
        ("key", bulk("strict:1")),
        ("class", bulk("strict")),
        ("change", bulk("put")),
        ("value_bytes", integer(10)),
        ("reason", bulk("refused")),
        ("attempts", integer(1)),
    ] {
        assert_eq!(field(&letter, name), value, "{name}");
    }
    assert!(!text(field(&letter, "code")).is_empty());
    let with_value = client.ask("TIDEGATE DEADLETTERS SHOW strict:1 VALUE");
    assert_eq!(field(&with_value, "value"), bulk("bad-secret"));
    client.expect("GET strict:1", bulk("bad-secret"));
    client.expect("TIDEGATE DEADLETTERS SHOW strict:2", Reply::Null);
    let told = error_text(&client.ask("TIDEGATE FLUSH strict:1 TIMEOUT 5000"));
    assert!(told.starts_with("REFUSED "), "{told}");
    assert!(!told.contains("secret") && !folder.stderr().contains("secret"));

    assert_eq!(server.terminate(), 6);
    assert!(
        folder.stderr().contains("1 dead letter ("),
        "{}",
        folder.stderr()
    );
    let server = folder.serve_config(CONFIG);
    let mut client = server.connect();
    assert_eq!(client.ask("TIDEGATE DEADLETTERS SHOW strict:1"), letter);
    server.kill9();
    let server = folder.serve_config(CONFIG);
    assert_eq!(
        server.connect().ask("TIDEGATE DEADLETTERS SHOW strict:1"),
        letter
    );
}

#[test]
fn a_retry_stores_what_the_store_takes_now_and_counts_what_it_does_not() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    for key in ["strict:1", "strict:2", "strict:ALL"] {
        refuse(&mut client, key, "bad");
    }
    client.expect("TIDEGATE DEADLETTERS RETRY strict:1", integer(1));
    let told = error_text(&client.ask("TIDEGATE FLUSH KEY strict:1"));
    assert!(told.starts_with("REFUSED "), "{told}");
    let letter = client.ask("TIDEGATE DEADLETTERS SHOW strict:1");
    assert_eq!(field(&letter, "attempts"), integer(2));
    client.expect("TIDEGATE DEADLETTERS RETRY strict:none", integer(0));
    sql(
        &folder,
        "drop trigger strict_insert; drop trigger strict_update",
    );
    client.expect("TIDEGATE DEADLETTERS RETRY KEY strict:1", integer(1));
    let stored = client.ask("TIDEGATE FLUSH strict:1");
    assert_eq!(field(&stored, "durability"), bulk("store"));
    assert_eq!(row(&folder, "strict:1").as_deref(), Some("bad"));
    client.expect("TIDEGATE DEADLETTERS RETRY ALL CLASS free", integer(0));
    client.expect("TIDEGATE DEADLETTERS RETRY ALL CLASS strict", integer(2));
    let report = client.ask("TIDEGATE FLUSH");
    assert_eq!(field(&report, "parked"), integer(0));
    assert_eq!(row(&folder, "strict:ALL").as_deref(), Some("bad"));
    assert_eq!(server.terminate(), 0);
}

#[test]
fn an_edit_writes_anew_and_only_over_the_version_that_was_seen() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    refuse(&mut client, "strict:1", "bad1");
    let seen = version(&mut client, "strict:1");
    refuse(&mut client, "strict:1", "bad2");
    let told = error_text(&client.ask(&format!("TIDEGATE DEADLETTERS EDIT strict:1 {seen} good")));
    assert!(told.starts_with("NOLETTER "), "{told}");
    client.expect("GET strict:1", bulk("bad2"));
    let seen = version(&mut client, "strict:1");
    client.expect(
        &format!("TIDEGATE DEADLETTERS EDIT strict:1 {seen} good"),
        ok(),
    );
    client.ask("TIDEGATE FLUSH strict:1");
    client.expect("GET strict:1", bulk("good"));
    assert_eq!(row(&folder, "strict:1").as_deref(), Some("good"));
    assert_eq!(letters(&mut client, ""), []);
    assert_eq!(server.terminate(), 0);
}

#[test]
fn a_discard_needs_the_version_and_readers_get_the_row_again() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    client.expect("SET strict:1 good", ok());
    client.ask("TIDEGATE FLUSH strict:1");
    refuse(&mut client, "strict:1", "bad");
    client.expect("GET strict:1", bulk("bad"));
    let told = error_text(&client.ask("TIDEGATE DEADLETTERS DISCARD strict:1 1.1"));
    assert!(told.starts_with("NOLETTER "), "{told}");
    let seen = version(&mut client, "strict:1");
    client.expect(
        &format!("TIDEGATE DEADLETTERS DISCARD strict:1 {seen}"),
        ok(),
    );
    client.expect("GET strict:1", bulk("good"));
    assert_eq!(letters(&mut client, ""), []);
    server.kill9();
    let server = folder.serve_config(CONFIG);
    let mut client = server.connect();
    client.expect("GET strict:1", bulk("good"));
    assert_eq!(letters(&mut client, ""), []);
    assert_eq!(server.terminate(), 0);
}

#[test]
fn a_newer_write_supersedes_a_dead_letter() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    refuse(&mut client, "strict:1", "bad");
    client.expect("SET strict:1 good", ok());
    let report = client.ask("TIDEGATE FLUSH");
    assert_eq!(field(&report, "parked"), integer(0));
    assert_eq!(row(&folder, "strict:1").as_deref(), Some("good"));
    refuse(&mut client, "strict:2", "bad");
    client.expect("DEL strict:2", integer(1));
    client.ask("TIDEGATE FLUSH");
    assert_eq!(letters(&mut client, ""), []);
    assert_eq!(server.terminate(), 0);
}

#[test]
fn an_addition_says_what_it_adds_if_asked_and_a_retry_adds_it_to_the_row() {
    let folder = Folder::new();
    let config = "[[class]]\nname = 'sum'\nkeys = 'sum:*'\nstrategy = 'write-back'\nlinger = '1ms'\ndelta = true\n";
    let server = folder.serve_config(config);
    let mut client = server.connect();
    client.expect("SET sum:1 50", ok());
    client.ask("TIDEGATE FLUSH sum:1");
    sql(
        &folder,
        "create trigger small before update on sum when cast(new.value as integer) > 100 \
         begin select raise(abort, 'too much'); end",
    );
    client.expect("INCRBY sum:1 500", integer(550));
    client.ask("TIDEGATE FLUSH CLASS sum TIMEOUT 20000");
    let letter = client.ask("TIDEGATE DEADLETTERS SHOW sum:1");
    assert_eq!(field(&letter, "change"), bulk("add"));
    assert!(!format!("{letter:?}").contains("500"), "not unasked");
    let letter = client.ask("TIDEGATE DEADLETTERS SHOW sum:1 VALUE");
    assert_eq!(field(&letter, "added"), bulk("+500"));
    assert_eq!(field(&letter, "value"), bulk("550"));
    sql(
        &folder,
        "drop trigger small; update sum set value = '60' where key = 'sum:1'",
    );
    client.expect("TIDEGATE DEADLETTERS RETRY sum:1", integer(1));
    client.ask("TIDEGATE FLUSH CLASS sum TIMEOUT 20000");
    client.expect("TIDEGATE EVICT sum:1", integer(1));
    client.expect("GET sum:1", bulk("560"));
}

#[test]
fn lists_come_in_pages() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    for i in 0..7 {
        client.expect(&format!("SET strict:{i} bad"), ok());
    }
    client.ask("TIDEGATE FLUSH TIMEOUT 20000");
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = letters(&mut client, &format!(" CLASS strict COUNT 3{after}"));
        seen.extend(page.iter().map(|letter| text(field(letter, "key"))));
        if page.len() < 3 {
            break;
        }
        after = format!(" AFTER {}", seen.last().unwrap());
    }
    let expected: Vec<String> = (0..7).map(|i| format!("strict:{i}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(letters(&mut client, " CLASS free"), []);
}

#[test]
fn what_is_asked_wrongly_is_answered_with_what_is_wrong() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    for (line, expected) in [
        (
            "TIDEGATE DEADLETTERS",
            "ERR wrong number of arguments for 'tidegate|deadletters' command",
        ),
        (
            "TIDEGATE DEADLETTERS BURN",
            "ERR unknown subcommand 'BURN'. Try TIDEGATE DEADLETTERS HELP.",
        ),
        (
            "TIDEGATE DEADLETTERS SHOW",
            "ERR wrong number of arguments for 'tidegate|deadletters|show' command",
        ),
        (
            "TIDEGATE DEADLETTERS SHOW k LOUD",
            "ERR 'LOUD' is no option here; there is: VALUE",
        ),
        (
            "TIDEGATE DEADLETTERS LIST COUNT 0",
            "ERR COUNT is 1 to 1000",
        ),
        (
            "TIDEGATE DEADLETTERS LIST CLASS none",
            "ERR there is no class 'none'",
        ),
        (
            "TIDEGATE DEADLETTERS LIST LIMIT 5",
            "ERR 'LIMIT' is no option here; there are: CLASS, AFTER, COUNT",
        ),
        ("TIDEGATE DEADLETTERS RETRY a b c", "ERR syntax error"),
        (
            "TIDEGATE DEADLETTERS EDIT k x v",
            "ERR 'x' is no version; it is shown by LIST and SHOW, such as 3.17",
        ),
        (
            "TIDEGATE DEADLETTERS DISCARD k 1.1",
            "NOLETTER there is no dead letter of key 'k'",
        ),
        ("TIDEGATE FLUSH CLASS", "ERR CLASS lacks its value"),
        (
            "TIDEGATE FLUSH KEY k CLASS c",
            "ERR KEY and CLASS exclude each other",
        ),
        (
            "TIDEGATE FLUSH k TIMEOUT soon",
            "ERR TIMEOUT is a number of milliseconds, not negative",
        ),
        (
            "TIDEGATE SECURE k DISK",
            "ERR a write is secured in JOURNAL or STORE, not in 'DISK'",
        ),
    ] {
        assert_eq!(error_text(&client.ask(line)), expected, "{line}");
    }
    let told = error_text(&client.ask("TIDEGATE FLUSH CLASS none"));
    assert!(
        told.starts_with("ERR ") && told.contains("'none'"),
        "{told}"
    );
    for line in ["TIDEGATE HELP", "TIDEGATE DEADLETTERS HELP"] {
        let help = format!("{:?}", client.ask(line));
        assert!(
            help.contains("RETRY [KEY] key") || help.contains("RETRY [KEY]"),
            "{help}"
        );
    }
}

#[test]
fn a_write_is_secured_where_it_is_asked_to_be() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    client.expect("SET free:1 1", ok());
    let secured = client.ask("TIDEGATE SECURE free:1 JOURNAL");
    assert_eq!(field(&secured, "durability"), bulk("journal"));
    // The class lingers for an hour, so only the wish brings it to the store.
    let secured = client.ask("TIDEGATE SECURE free:1 STORE TIMEOUT 20000");
    assert_eq!(field(&secured, "durability"), bulk("store"));
    client.expect("SET free:1 2", ok());
    sql_locked(&folder, || {
        let told = error_text(&client.ask("TIDEGATE SECURE free:1 STORE TIMEOUT 100"));
        assert!(told.starts_with("UNAVAILABLE "), "{told}");
    });
    let secured = client.ask("TIDEGATE FLUSH free:1 TIMEOUT 20000");
    assert_eq!(field(&secured, "durability"), bulk("store"));
    assert_eq!(server.terminate(), 0);
}

/// While somebody else holds the database.
fn sql_locked(folder: &Folder, then: impl FnOnce()) {
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.busy_timeout(support::PATIENCE).unwrap();
    database.execute_batch("begin immediate").unwrap();
    then();
}
