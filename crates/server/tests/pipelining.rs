//! Many commands at once on one connection: answers in order, commands on a key in order, no matter how they mix.

mod support;

use support::{Folder, bulk, field, integer, ok};
use tidegate_resp::Reply;

/// Three classes whose writes take different ways and times.
const CLASSES: &str = "
    [[class]]
    name = 'back'
    keys = 'back:*'
    strategy = 'write-back'
    [[class]]
    name = 'around'
    keys = 'around:*'
    strategy = 'write-around'
    [[class]]
    name = 'scratch'
    keys = 'scratch:*'
    strategy = 'cache-only'
";

#[test]
fn answers_come_in_the_order_of_the_commands() {
    let folder = Folder::new();
    let server = folder.serve_config(CLASSES);
    let mut client = server.connect();
    let prefixes = ["through:", "back:", "around:", "scratch:"];
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for round in 0..300 {
        for (at, prefix) in prefixes.iter().enumerate() {
            let key = format!("{prefix}{}", (round * 7 + at) % 40);
            lines.extend([
                format!("SET {key} {round}"),
                format!("GET {key}"),
                "PING".to_owned(),
            ]);
            expected.extend([ok(), bulk(&round.to_string()), Reply::simple("PONG")]);
        }
        lines.push(format!("ECHO {round}"));
        expected.push(bulk(&round.to_string()));
    }
    client.send(&lines);
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(client.read(), expected, "{line}");
    }
}

#[test]
fn commands_on_one_key_see_all_earlier_ones() {
    let folder = Folder::new();
    let server = folder.serve_config(CLASSES);
    let mut client = server.connect();
    for key in ["through:k", "back:k", "around:k", "scratch:k"] {
        let mut lines = Vec::new();
        let mut expected = Vec::new();
        for round in 0..50 {
            lines.extend([
                format!("SET {key} 1"),
                format!("SET {key} {round}"),
                format!("INCR {key}"),
                format!("GET {key}"),
                format!("APPEND {key} 0"),
                format!("MGET {key} {key}"),
                format!("SET {key} x NX"),
                format!("DEL {key}"),
                format!("GET {key}"),
                format!("EXISTS {key} {key}"),
                format!("DEL {key}"),
            ]);
            let next = (round + 1).to_string();
            let appended = bulk(&format!("{next}0"));
            expected.extend([
                ok(),
                ok(),
                integer(round + 1),
                bulk(&next),
                integer(i64::try_from(next.len()).unwrap() + 1),
                Reply::Array(vec![appended.clone(), appended]),
                Reply::Null,
                integer(1),
                Reply::Null,
                integer(0),
                integer(0),
            ]);
        }
        client.send(&lines);
        for (at, (line, expected)) in lines.iter().zip(expected).enumerate() {
            assert_eq!(client.read(), expected, "{at} {line}");
        }
    }
}

#[test]
fn commands_on_all_keys_wait_and_are_waited_for() {
    let folder = Folder::new();
    let server = folder.serve_config(CLASSES);
    let mut client = server.connect();
    client.send(&[
        "SET a 1",
        "SET back:b 2",
        "DBSIZE",
        "SET c 3",
        "DBSIZE",
        "DEL a",
        "FLUSHALL",
        "DBSIZE",
        "GET back:b",
        "TIDEGATE FLUSH TIMEOUT 20000",
        "TIDEGATE EXPLAIN back:b",
    ]);
    for expected in [
        ok(),
        ok(),
        integer(2),
        ok(),
        integer(3),
        integer(1),
        ok(),
        integer(2),
        bulk("2"),
    ] {
        assert_eq!(client.read(), expected);
    }
    assert_eq!(field(&client.read(), "left"), integer(0));
    assert_eq!(field(&client.read(), "class"), bulk("back"));
}

#[test]
fn a_switch_of_protocol_takes_effect_at_its_place() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    client.send(&[
        "SET k v",
        "GET nothing",
        "HELLO 3",
        "GET nothing",
        "HELLO 2",
        "GET nothing",
    ]);
    assert_eq!(client.read(), ok());
    assert_eq!(client.read(), Reply::Null);
    assert!(matches!(client.read(), Reply::Map(_)));
    assert_eq!(client.read(), Reply::Null);
    assert!(matches!(client.read(), Reply::Array(_)));
    assert_eq!(client.read(), Reply::Null);
}

#[test]
fn answers_can_be_turned_off_for_commands_that_take_time() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    client.send(&[
        "SET a 1",
        "CLIENT REPLY SKIP",
        "SET b 2",
        "GET b",
        "CLIENT REPLY OFF",
        "SET c 3",
        "NOSUCH",
        "GET c",
        "CLIENT REPLY ON",
        "GET c",
    ]);
    for expected in [ok(), bulk("2"), ok(), bulk("3")] {
        assert_eq!(client.read(), expected);
    }
}

#[test]
fn a_pipeline_far_longer_than_what_may_be_under_way_is_served() {
    let folder = Folder::new();
    let server = folder.serve_config("[server]\npipeline_max = 10\n");
    let client = server.connect();
    let mut reader = client.twin();
    let mut writer = client;
    let lines: Vec<String> = (0..3_000).map(|i| format!("INCR n{}", i % 3)).collect();
    let sender = std::thread::spawn(move || writer.send(&lines));
    for i in 0..3_000 {
        assert_eq!(reader.read(), integer(i / 3 + 1));
    }
    sender.join().unwrap();
}

#[test]
fn one_bad_command_does_not_disturb_its_neighbours() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.connect();
    client.send(&[
        "SET a 1",
        "INCR a extra",
        "NOSUCH a",
        "SET a x NX XX",
        "WATCH a",
        "HSET a b c",
        "INCR a",
    ]);
    assert_eq!(client.read(), ok());
    for name in ["'incr'", "'NOSUCH'", "syntax", "'WATCH'", "'HSET'"] {
        let text = support::error_text(&client.read());
        assert!(text.contains(name), "{text}");
    }
    assert_eq!(client.read(), integer(2));
}
