//! Clients as they are: many, slow, silent, rude.

mod support;

use std::io::Read;
use std::time::Duration;

use support::{Client, Folder, bulk, ok};
use tidegate_resp::Reply;

#[test]
fn a_thousand_connections_are_served() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut clients: Vec<Client> = (0..1000).map(|_| server.connect()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(&[format!("SET k{at} {at}"), format!("GET k{at}")]);
    }
    for (at, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read(), ok());
        assert_eq!(client.read(), bulk(&at.to_string()));
    }
    let info = match clients[0].ask("INFO clients") {
        Reply::Bulk(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(info.contains("connected_clients:1000\r\n"), "{info}");
    drop(clients);
    assert_eq!(server.terminate(), 0);
}

#[test]
fn one_client_too_many_is_told_so() {
    let folder = Folder::new();
    let server = folder.serve_config("[server]\nconnections_max = 2\n");
    let mut first = server.connect();
    let mut second = server.connect();
    first.expect("PING", Reply::simple("PONG"));
    second.expect("PING", Reply::simple("PONG"));
    let mut third = server.connect();
    assert_eq!(
        third.read(),
        Reply::error("ERR max number of clients reached")
    );
    assert_eq!(third.try_read().unwrap(), None);
    first.expect("QUIT", ok());
    assert_eq!(first.try_read().unwrap(), None);
    // The place is free as soon as the server has seen the end.
    let served = (0..10_000).any(|_| {
        let mut again = server.connect();
        again.send(&["PING"]);
        again.try_read().ok().flatten() == Some(Reply::simple("PONG"))
    });
    assert!(served);
}

#[test]
fn a_client_that_does_not_read_costs_bounded_memory() {
    let folder = Folder::new();
    let server = folder.serve_config("[server]\noutput_max = '1MiB'\n");
    let mut other = server.connect();
    let value = "x".repeat(100_000);
    other.expect(&format!("SET big {value}"), ok());

    // Three gigabytes of answers are asked for and not read.
    let slow = server.connect();
    let mut writer = slow.twin();
    let requests = 30_000;
    let sender = std::thread::spawn(move || {
        let lines = vec!["GET big"; requests];
        writer.send(&lines);
    });
    let mut highest = 0;
    for _ in 0..300 {
        other.expect("GET big", bulk(&value));
        highest = highest.max(server.resident_bytes());
    }
    assert!(highest < 128 << 20, "{highest} bytes");

    // And then it reads: nothing is missing.
    let mut reader = slow;
    let answer = format!("$100000\r\n{value}\r\n");
    let mut received = vec![0; answer.len()];
    for _ in 0..2_000 {
        reader.stream.read_exact(&mut received).unwrap();
        assert!(received == answer.as_bytes());
    }
    drop(reader);
    drop(server);
    // What was not sent is of no interest; the sender ends with an error when the server is gone.
    let _ = sender.join();
}

#[test]
fn an_answer_of_many_values_is_bounded() {
    let folder = Folder::new();
    let server = folder.serve_config("[server]\noutput_max = '2MiB'\n");
    let mut client = server.connect();
    let value = "x".repeat(1 << 20);
    for key in ["big", "other"] {
        client.expect(&format!("SET {key} {value}"), ok());
    }
    let before = server.resident_bytes();
    let thousand = format!("MGET{}", " big".repeat(1000));
    client.send(&vec![thousand; 10]);
    for _ in 0..10 {
        let text = support::error_text(&client.read());
        assert!(text.contains("2097152 bytes"), "{text}");
        assert!(text.contains("output_max"), "{text}");
    }
    // What is just within the bound is answered, and a single value may be longer than it.
    let both = Reply::Array(vec![bulk(&value), bulk(&value), Reply::Null]);
    client.expect("MGET big other none", both);
    client.expect(&format!("APPEND big {value}"), support::integer(2 << 20));
    client.expect("APPEND big x", support::integer((2 << 20) + 1));
    client.expect("GET big", bulk(&format!("{value}{value}x")));
    let highest = server.resident_bytes();
    assert!(highest < before + (64 << 20), "{before} {highest}");
}

#[test]
fn many_answers_of_many_values_that_are_not_read_cost_bounded_memory() {
    let folder = Folder::new();
    let config = "[server]\noutput_max = '2MiB'\n[near]\ncapacity = '64MiB'\n";
    let server = folder.serve_config(config);
    let mut other = server.connect();
    let value = "x".repeat(1 << 20);
    other.expect(&format!("SET big {value}"), ok());

    // Two gigabytes of answers in requests of a few bytes, and not read. The first command of each round misses,
    // so that what follows is answered before its turn.
    for _ in 0..3 {
        other.expect("TIDEGATE EVICT big", support::integer(1));
        let mut slow = server.connect();
        slow.send(&vec!["MGET big big"; 1000]);
        let mut highest = 0;
        for _ in 0..50 {
            other.expect("GET big", bulk(&value));
            highest = highest.max(server.resident_bytes());
        }
        assert!(highest < 256 << 20, "{highest} bytes");
        let answer = Reply::Array(vec![bulk(&value), bulk(&value)]);
        for _ in 0..20 {
            assert!(slow.read() == answer);
        }
    }
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut good = server.connect();
    good.expect("SET a 1", ok());
    for (bytes, expected) in [
        (
            &b"*1\r\nPING\r\n"[..],
            "ERR Protocol error: expected '$', got 'P'",
        ),
        (
            b"*9999999999\r\n",
            "ERR Protocol error: invalid multibulk length",
        ),
        (
            b"*1\r\n$99999999999\r\n",
            "ERR Protocol error: invalid bulk length",
        ),
        (b"*1\r\n$-5\r\n", "ERR Protocol error: invalid bulk length"),
        (
            b"\"\r\n",
            "ERR Protocol error: unbalanced quotes in request",
        ),
    ] {
        let mut bad = server.connect();
        bad.write(b"PING\r\n");
        assert_eq!(bad.read(), Reply::simple("PONG"));
        bad.write(bytes);
        assert_eq!(bad.read(), Reply::error(expected));
        assert_eq!(bad.try_read().unwrap(), None);
    }
    // Bytes of every kind, in a fixed order that looks like none.
    let mut state: u32 = 1;
    for _ in 0..50 {
        let mut bad = server.connect();
        let noise: Vec<u8> = (0..2000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        bad.write(&noise);
        bad.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = bad.stream.read_to_end(&mut answer);
    }
    good.expect("GET a", bulk("1"));
}

#[test]
fn a_request_longer_than_the_limit_is_refused() {
    let folder = Folder::new();
    let server = folder.serve_config("[server]\nrequest_max = '1MiB'\n");
    let mut client = server.connect();
    client.expect(&format!("SET a {}", "x".repeat(1_000_000)), ok());
    client.write(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2000000\r\n");
    assert!(support::error_text(&client.read()).starts_with("ERR Protocol error"));
    assert_eq!(client.try_read().unwrap(), None);
}

#[test]
fn a_key_that_is_too_long_is_refused_and_the_connection_goes_on() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    let long = "k".repeat(64 * 1024 + 1);
    for line in [
        format!("SET {long} 1"),
        format!("GET {long}"),
        format!("MGET a {long}"),
        format!("TIDEGATE EVICT {long}"),
    ] {
        let text = support::error_text(&client.ask(&line));
        assert_eq!(text, "ERR key is longer than 65536 bytes");
    }
    client.expect(&format!("SET {} 1", &long[1..]), ok());
    client.expect(&format!("GET {}", &long[1..]), bulk("1"));
}

#[test]
fn a_client_that_ends_its_half_still_gets_its_answers() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    client.send(&["SET a 1", "GET a", "INCR a"]);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(), ok());
    assert_eq!(client.read(), bulk("1"));
    assert_eq!(client.read(), Reply::Integer(2));
    assert_eq!(client.try_read().unwrap(), None);
}

#[test]
fn a_silent_client_is_let_go_and_a_busy_one_is_not() {
    let folder = Folder::new();
    let server = folder.serve_config("[server]\nidle_timeout = '500ms'\n");
    let mut silent = server.connect();
    let mut busy = server.connect();
    silent.expect("PING", Reply::simple("PONG"));
    silent
        .stream
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let mut rounds = 0;
    loop {
        busy.expect("PING", Reply::simple("PONG"));
        match silent.try_read() {
            Ok(end) => {
                assert_eq!(end, None);
                break;
            }
            Err(_) => rounds += 1,
        }
        assert!(rounds < 6_000, "the silent client is still connected");
    }
    assert!(rounds > 10, "{rounds}");
    busy.expect("PING", Reply::simple("PONG"));
}

#[test]
fn clients_are_listed_by_what_they_say_of_themselves() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut one = server.connect();
    let mut two = server.connect();
    one.expect("CLIENT SETNAME one", ok());
    two.expect("CLIENT SETINFO LIB-NAME redis-py", ok());
    two.expect("CLIENT SETINFO LIB-VER 5.0", ok());
    let list = match one.ask("CLIENT LIST") {
        Reply::Bulk(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains(" name=one "), "{list}");
    assert!(list.contains(" lib-name=redis-py lib-ver=5.0"), "{list}");
}

#[test]
fn a_web_page_that_is_made_to_send_commands_changes_nothing() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut good = server.connect();
    good.expect("SET victim alive", ok());
    for start in [
        "POST / HTTP/1.1\r\nHost: x\r\n",
        "post / HTTP/1.1\r\n",
        "hOST: x\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\n",
        "*1\r\n$4\r\nPOST\r\n",
        "MULTI\r\nPOST / HTTP/1.1\r\n",
    ] {
        let mut page = server.connect();
        page.write(format!("{start}DEL victim\r\nSET pwned yes\r\n").as_bytes());
        // Closed, with at most the refusal of what stood before it.
        while let Ok(Some(answer)) = page.try_read() {
            let text = support::error_text(&answer);
            assert!(text.starts_with("ERR "), "{start}: {text}");
        }
        good.expect("GET victim", bulk("alive"));
        good.expect("EXISTS pwned", support::integer(0));
    }
    let log = folder.stderr();
    assert_eq!(log.matches("possible security attack").count(), 6, "{log}");
    assert!(!log.contains("pwned"), "{log}");
    assert_eq!(server.terminate(), 0);
}
