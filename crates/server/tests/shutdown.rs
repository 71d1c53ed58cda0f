//! The end: what was asked is answered, what is dirty is stored, and the exit code says what is left.

mod support;

use support::{Folder, bulk, ok};
use tidegate_resp::Reply;

const WRITE_BACK: &str = "
    [[class]]
    name = 'session'
    keys = 'session:*'
    strategy = 'write-back'
    linger = '1h'
";

#[test]
fn a_drained_server_ends_with_zero_and_nothing_is_missing() {
    for signal in ["TERM", "INT"] {
        let folder = Folder::new();
        let server = folder.serve_config(WRITE_BACK);
        let mut client = server.connect();
        for i in 0..100 {
            client.expect(&format!("SET session:{i} {i}"), ok());
        }
        server.signal(signal);
        assert_eq!(client.try_read().unwrap(), None, "connections are closed");
        assert_eq!(server.wait(), 0);

        // Without the journal the rows can only come from the table.
        std::fs::remove_dir_all(folder.data().join("journal")).unwrap();
        let server = folder.serve_config(
            "[[class]]\nname = 'seen'\nkeys = 'session:*'\ntable = 'session'\nstrategy = 'read-only'\n",
        );
        let mut client = server.connect();
        for i in 0..100 {
            client.expect(&format!("GET session:{i}"), bulk(&i.to_string()));
        }
    }
}

#[test]
fn what_could_not_be_stored_in_time_is_told_and_kept() {
    let folder = Folder::new();
    let hurried = format!(
        "[server]\nshutdown_timeout = '500ms'\n[store]\nurl = 'sqlite:store.db?busy_timeout=50ms'\n{WRITE_BACK}"
    );
    let server = folder.serve_config(&hurried);
    let mut client = server.connect();
    for i in 0..100 {
        client.expect(&format!("SET session:{i} {i}"), ok());
    }
    // Somebody else holds the database, so nothing can be stored.
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.execute_batch("begin immediate").unwrap();
    server.signal("TERM");
    while client.try_read().is_ok_and(|reply| reply.is_some()) {}
    let code = server.wait();
    let told = folder.stderr();
    assert_eq!(code, 6, "{told}");
    assert!(
        told.contains("not in the store: 100 dirty entries (")
            && told.contains("in the journal")
            && !told.contains("lost"),
        "{told}"
    );

    drop(database);
    let server = folder.serve_config(WRITE_BACK);
    let mut client = server.connect();
    for i in 0..100 {
        client.expect(&format!("GET session:{i}"), bulk(&i.to_string()));
    }
    assert_eq!(server.terminate(), 0);
}

#[test]
fn what_only_memory_had_is_told_as_lost_with_a_code_of_its_own() {
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[server]\ndrain_timeout = '300ms'\n[store]\nurl = 'sqlite:store.db?busy_timeout=50ms'\n{WRITE_BACK}
        [[class]]\nname = 'view'\nkeys = 'view:*'\nstrategy = 'write-back'\ndurability = 'memory'\nlinger = '1h'\n"
    ));
    let mut client = server.connect();
    for i in 0..5 {
        client.expect(&format!("SET view:{i} {i}"), ok());
    }
    client.expect("SET session:1 1", ok());
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.execute_batch("begin immediate").unwrap();
    server.signal("TERM");
    while client.try_read().is_ok_and(|reply| reply.is_some()) {}
    let code = server.wait();
    let told = folder.stderr();
    assert_eq!(code, 8, "{told}");
    assert!(told.contains("5 dirty entries ("), "{told}");
    assert!(
        told.contains("of classes with durability memory, which nothing else had: lost"),
        "{told}"
    );
    assert!(told.contains("1 dirty entry ("), "{told}");
    drop(database);
    let server = folder.serve_config(WRITE_BACK);
    server.connect().expect("GET session:1", bulk("1"));
    assert_eq!(server.terminate(), 0);
}

#[test]
fn acknowledged_write_back_writes_survive_a_kill() {
    let folder = Folder::new();
    let server = folder.serve_config(WRITE_BACK);
    let mut client = server.connect();
    for i in 0..100 {
        client.expect(&format!("SET session:{i} {i}"), ok());
    }
    server.kill9();
    let server = folder.serve_config(WRITE_BACK);
    let mut client = server.connect();
    for i in 0..100 {
        client.expect(&format!("GET session:{i}"), bulk(&i.to_string()));
    }
}

#[test]
fn commands_under_way_are_answered() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    let lines: Vec<String> = (0..2000).map(|i| format!("SET k{i} {i}")).collect();
    client.send(&lines);
    assert_eq!(client.read(), ok());
    server.signal("TERM");
    let mut answered = 1;
    while let Ok(Some(reply)) = client.try_read() {
        assert_eq!(reply, ok());
        answered += 1;
    }
    assert_eq!(server.wait(), 0);
    let server = folder.serve();
    let mut client = server.connect();
    for i in 0..answered {
        client.expect(&format!("GET k{i}"), bulk(&i.to_string()));
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = Folder::new();
    // A shutdown that would take an hour: a client that does not take its answers.
    let mut server =
        folder.serve_config("[server]\nshutdown_timeout = '1h'\noutput_max = '1MiB'\n");
    let mut client = server.connect();
    client.expect(&format!("SET big {}", "x".repeat(1_000_000)), ok());
    let stuck = server.connect();
    let mut writer = stuck.twin();
    writer.send(&vec!["GET big"; 100]);
    // Until the answers that fit are on their way, the server is not stuck.
    let mut first = [0; 1];
    stuck.stream.peek(&mut first).unwrap();
    server.signal("TERM");
    assert_eq!(client.try_read().unwrap(), None);
    // Signals that follow within a second are taken for echoes of the first.
    let mut signals = 1;
    while !server.has_ended() {
        server.signal("TERM");
        signals += 1;
        assert!(signals < 100_000);
    }
    assert_eq!(server.wait(), 7);
}

#[test]
fn one_wish_to_end_that_arrives_twice_still_drains() {
    let folder = Folder::new();
    let server = folder.serve_config(WRITE_BACK);
    let mut client = server.connect();
    for i in 0..100 {
        client.expect(&format!("SET session:{i} {i}"), ok());
    }
    // The database is held for as long as both signals are on their way, so the drain cannot be over before.
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.execute_batch("begin immediate").unwrap();
    server.signal("INT");
    server.signal("TERM");
    assert_eq!(client.try_read().unwrap(), None);
    drop(database);
    assert_eq!(server.wait(), 0);
}

#[test]
fn no_new_connection_is_taken_during_a_shutdown() {
    let folder = Folder::new();
    let server = folder.serve();
    let port = server.port();
    assert_eq!(server.connect().ask("PING"), Reply::simple("PONG"));
    assert_eq!(server.terminate(), 0);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_signal_before_the_store_is_open_is_not_said_to_have_stored_everything() {
    let folder = Folder::new();
    // Takes connections and never answers, as a database that hangs.
    let database = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = database.local_addr().unwrap();
    let config = folder.write(
        "hangs.toml",
        &format!("[store]\nurl = 'postgres://nobody@{address}/nothing'\n"),
    );
    let data = folder.data();
    let started = support::begin(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ]);
    let _asked = database.accept().unwrap();
    let sent = std::process::Command::new("kill")
        .args(["-s", "TERM", &started.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let ended = started.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(5), "{told}");
    assert!(
        told.contains("what an earlier run left in the journal"),
        "{told}"
    );
}

#[test]
fn a_store_that_hangs_does_not_hold_up_the_end() {
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[server]\nshutdown_timeout = '500ms'\n[store]\nurl = 'sqlite:store.db?busy_timeout=300s'\n{WRITE_BACK}"
    ));
    server.connect().expect("SET session:1 1", ok());
    // Somebody else holds the database, and the store waits for it for minutes.
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.execute_batch("begin immediate").unwrap();
    server.signal("TERM");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(server.wait()));
    let code = told.recv_timeout(support::PATIENCE);
    assert_eq!(code, Ok(6), "{}", folder.stderr());
    drop(database);
}
