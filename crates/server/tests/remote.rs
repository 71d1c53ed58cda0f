//! `tidegate flush` and `tidegate dead-letters` against a running server: tables, JSON, exit codes.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::io::{Read, Write};

use support::{Client, Ended, Folder, Server, bulk, ok, run, run_with_input};

const CONFIG: &str = "
    [[class]]
    name = 'strict'
    keys = 'strict:*'
    strategy = 'write-back'
    linger = '1h'
";

fn strict(folder: &Folder) -> Server {
    let server = folder.serve_config(CONFIG);
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.busy_timeout(support::PATIENCE).unwrap();
    for event in ["insert", "update"] {
        let trigger = format!(
            "create trigger strict_{event} before {event} on strict when new.value like 'bad%' \
             begin select raise(abort, 'bad values are refused'); end"
        );
        database.execute_batch(&trigger).unwrap();
    }
    server
}

/// Runs a command against the server, its arguments separated by blanks.
fn tidegate(server: &Server, line: &str) -> Ended {
    tidegate_with_input(server, line, b"")
}

fn tidegate_with_input(server: &Server, line: &str, input: &[u8]) -> Ended {
    let address = format!("127.0.0.1:{}", server.port());
    let mut arguments: Vec<&str> = line.split(' ').collect();
    arguments.extend(["--server", &address]);
    run_with_input(&arguments, input)
}

#[track_caller]
fn expect(server: &Server, line: &str, code: i32, said: &str) -> Ended {
    let ended = tidegate(server, line);
    assert_eq!(ended.code, code, "{line}: {ended:?}");
    let all = format!("{}{}", ended.stdout, ended.stderr);
    assert!(all.contains(said), "{line}: {ended:?}");
    ended
}

fn json(ended: &Ended) -> serde_json::Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

fn refuse(client: &mut Client, keys: &[&str]) {
    for key in keys {
        client.expect(&format!("SET {key} bad-secret"), ok());
    }
    client.ask("TIDEGATE FLUSH TIMEOUT 20000");
}

#[test]
fn a_flush_says_by_class_what_it_did_and_what_is_left() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    client.expect("SET strict:1 good", ok());
    client.expect("SET strict:2 good", ok());
    expect(&server, "flush strict:1", 0, "strict:1: the store has it");
    let flushed = json(&expect(&server, "flush --json", 0, ""));
    assert_eq!(flushed["left"], 0);
    assert_eq!(flushed["classes"]["strict"]["parked"], 0);
    client.expect("SET strict:3 bad", ok());
    let table = expect(
        &server,
        "flush --class strict --timeout 20s",
        6,
        "dead letters",
    );
    assert!(table.stdout.contains("CLASS"), "{table:?}");
    expect(&server, "flush strict:3", 6, "REFUSED");
    expect(&server, "flush --class none", 9, "'none'");
    expect(&server, "flush --timeout soon", 2, "is no duration");
}

#[test]
fn dead_letters_are_listed_and_shown_without_their_values() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    expect(&server, "dead-letters list", 0, "no dead letters");
    refuse(&mut client, &["strict:1", "strict:2", "strict:3"]);
    let table = expect(&server, "dead-letters list", 0, "strict:2");
    assert_eq!(table.stdout.lines().count(), 4, "{table:?}");
    assert!(!table.stdout.contains("secret"), "{table:?}");
    let list = json(&expect(&server, "dead-letters list --json", 0, ""));
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(list[0]["key"], "strict:1");
    assert_eq!(list[0]["reason"], "refused");
    assert!(list[0].get("value").is_none());
    let page = expect(&server, "dead-letters list --limit 2", 0, "more than 2");
    assert!(!page.stdout.contains("strict:3"), "{page:?}");
    let page = expect(
        &server,
        "dead-letters list --after strict:2 --class strict",
        0,
        "strict:3",
    );
    assert_eq!(page.stdout.lines().count(), 2, "{page:?}");
    let shown = expect(
        &server,
        "dead-letters show strict:1",
        0,
        "a trigger refused it",
    );
    assert!(!shown.stdout.contains("secret"), "{shown:?}");
    expect(
        &server,
        "dead-letters show strict:1 --value",
        0,
        "bad-secret",
    );
    let shown = json(&expect(
        &server,
        "dead-letters show strict:1 --value --json",
        0,
        "",
    ));
    assert_eq!(shown["value"], "bad-secret");
    expect(
        &server,
        "dead-letters show strict:none",
        10,
        "no dead letter of key 'strict:none'",
    );
}

#[test]
fn dead_letters_are_retried_edited_and_discarded() {
    let folder = Folder::new();
    let server = strict(&folder);
    let mut client = server.connect();
    client.expect("SET strict:3 good", ok());
    client.ask("TIDEGATE FLUSH");
    refuse(&mut client, &["strict:1", "strict:2", "strict:3"]);
    expect(&server, "dead-letters retry strict:1", 6, "REFUSED");
    expect(
        &server,
        "dead-letters retry strict:none",
        10,
        "no dead letter",
    );
    expect(
        &server,
        "dead-letters retry --all",
        6,
        "3 retried; 3 are dead letters now",
    );
    expect(&server, "dead-letters retry", 2, "--all");

    let edited = tidegate_with_input(&server, "dead-letters edit strict:1", b"better");
    assert_eq!(edited.code, 0, "{edited:?}");
    client.expect("GET strict:1", bulk("better"));
    let value = folder.write("value.txt", "best");
    let line = format!(
        "dead-letters edit strict:2 --json --file {}",
        value.display()
    );
    let edited = expect(&server, &line, 0, "");
    assert_eq!(json(&edited)["stored"], true);
    client.expect("GET strict:2", bulk("best"));
    let edited = tidegate_with_input(&server, "dead-letters edit strict:1", b"again");
    assert_eq!(edited.code, 10, "{edited:?}");

    let asked = tidegate_with_input(&server, "dead-letters discard strict:3", b"no\n");
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.stderr.contains("nothing was changed"), "{asked:?}");
    expect(
        &server,
        "dead-letters discard strict:3 --yes --if-version 1.1",
        10,
        "of version",
    );
    client.expect("GET strict:3", bulk("bad-secret"));
    let asked = tidegate_with_input(&server, "dead-letters discard strict:3", b"yes\n");
    assert_eq!(asked.code, 0, "{asked:?}");
    client.expect("GET strict:3", bulk("good"));
    expect(
        &server,
        "dead-letters discard strict:3 --yes",
        10,
        "no dead letter",
    );
    assert_eq!(server.terminate(), 0);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    for line in ["flush", "dead-letters list"] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.extend(["--server", &address]);
        let ended = run(&arguments);
        assert_eq!(ended.code, 9, "{ended:?}");
        assert!(
            ended.stderr.contains(&address) && ended.stderr.contains("--server"),
            "{ended:?}"
        );
    }
    let odd = run(&["flush", "--server", "nowhere"]);
    assert_eq!(odd.code, 9, "{odd:?}");
}

#[test]
fn what_a_server_says_cannot_move_the_cursor() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 1024]).unwrap();
            client.write_all(b"-REFUSED ev\x1b[2Jil\r\n").unwrap();
        }
    });
    for line in ["dead-letters list", "flush key"] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.extend(["--server", &address]);
        let ended = run(&arguments);
        assert!(
            ended.stderr.contains("ev\\u{1b}[2Jil") && !ended.stderr.contains('\x1b'),
            "{ended:?}"
        );
    }
    answers.join().unwrap();
    assert_eq!(run(&["dead-letters", "list", "--limit", "0"]).code, 2);
}

#[test]
fn the_help_of_each_command_stands_by_itself() {
    for (line, words) in [
        (
            "flush --help",
            &["KEY", "--class", "--timeout", "--server", "--json"][..],
        ),
        (
            "dead-letters --help",
            &["list", "show", "retry", "edit", "discard", "night"],
        ),
        ("dead-letters discard --help", &["--yes", "--if-version"]),
    ] {
        let ended = run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(ended.code, 0);
        for word in words {
            assert!(
                ended.stdout.contains(word),
                "{line}: no {word}\n{}",
                ended.stdout
            );
        }
    }
}
