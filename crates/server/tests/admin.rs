//! The admin address: a page that a parser which is not ours reads, answers for whoever watches, and nothing that a
//! stranger's request could do.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use prometheus_parse::{Scrape, Value};
use support::{Folder, Server, ok};

const CONFIG: &str = "
    [server]
    admin = '127.0.0.1:0'
    [[class]]
    name = 'session'
    keys = 'session:*'
    strategy = 'write-back'
    linger = '1h'
";

fn admin_port(server: &Server) -> u16 {
    let after = server.words().split_once("http://127.0.0.1:").unwrap().1;
    after.split_once('/').unwrap().0.parse().unwrap()
}

/// Sends bytes; everything that comes back until the server closes.
fn converse(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    // A server that has refused what it read so far need not take the rest.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(port: u16, method: &str, path: &str) -> (u16, String, String) {
    let answer = converse(
        port,
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

fn scrape(port: u16) -> Scrape {
    let (status, head, body) = request(port, "GET", "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// The value of a metric, for a class or without labels.
fn value(scrape: &Scrape, name: &str, class: &str) -> f64 {
    let found = scrape
        .samples
        .iter()
        .find(|sample| sample.metric == name && sample.labels.get("class").unwrap_or("") == class);
    match found
        .unwrap_or_else(|| panic!("no {name} of '{class}'"))
        .value
    {
        Value::Counter(value) | Value::Gauge(value) => value,
        ref other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn another_parser_reads_the_page_and_finds_what_happened() {
    let folder = Folder::new();
    let server = folder.serve_config(CONFIG);
    let port = admin_port(&server);
    let mut client = server.connect();
    for i in 0..7 {
        client.expect(&format!("SET session:{i} {i}"), ok());
    }
    client.expect("SET other 1", ok());
    client.ask("GET other");
    let page = scrape(port);
    assert_eq!(value(&page, "tidegate_dirty_entries", "session"), 7.0);
    assert!(value(&page, "tidegate_dirty_bytes", "session") > 7.0);
    assert_eq!(
        value(&page, "tidegate_dirty_bytes_max", "session"),
        (64 << 20) as f64
    );
    assert_eq!(value(&page, "tidegate_dead_letters", "session"), 0.0);
    assert_eq!(value(&page, "tidegate_journal_failed", ""), 0.0);
    assert!(value(&page, "tidegate_journal_bytes", "") > 0.0);
    // The last one is counted a moment after its answer.
    assert!(value(&page, "tidegate_commands_total", "") >= 8.0);
    let breaker = page
        .samples
        .iter()
        .filter(|sample| sample.metric == "tidegate_store_breaker_state");
    assert_eq!(breaker.count(), 3);
    client.ask("TIDEGATE FLUSH");
    let page = scrape(port);
    assert_eq!(value(&page, "tidegate_dirty_entries", "session"), 0.0);
    assert_eq!(value(&page, "tidegate_flush_lag_seconds", "session"), 0.0);
    assert_eq!(
        value(&page, "tidegate_flushed_entries_total", "session"),
        7.0
    );
}

#[test]
fn names_follow_the_conventions() {
    let folder = Folder::new();
    let server = folder.serve_config(CONFIG);
    let (_, _, body) = request(admin_port(&server), "GET", "/metrics");
    let mut kinds = BTreeMap::new();
    let mut helped = 0;
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "{name} comes twice");
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (_, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{rest}");
            helped += 1;
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(kinds.contains_key(name), "{name} has no type before it");
        }
    }
    assert!(kinds.len() > 20 && helped == kinds.len());
    for (name, kind) in kinds {
        assert!(name.starts_with("tidegate_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            kind == "counter",
            "{name} is a {kind}"
        );
        assert!(
            !name.contains("_ms"),
            "{name}: seconds are the unit of time"
        );
    }
}

#[test]
fn whoever_watches_learns_of_health_and_readiness() {
    let folder = Folder::new();
    let server = folder.serve_config(CONFIG);
    let port = admin_port(&server);
    assert_eq!(request(port, "GET", "/healthz").0, 200);
    assert_eq!(request(port, "GET", "/readyz").0, 200);
    let head = request(port, "HEAD", "/metrics");
    assert_eq!((head.0, head.2.as_str()), (200, ""));
    assert_eq!(request(port, "GET", "/metrics/..").0, 404);
}

#[test]
fn a_server_that_drains_is_not_ready_and_still_shows_its_figures() {
    let folder = Folder::new();
    let server = folder.serve_config(CONFIG);
    let port = admin_port(&server);
    let mut client = server.connect();
    client.expect("SET session:1 1", ok());
    // Held by somebody else, so that the drain cannot end.
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    database.execute_batch("begin immediate").unwrap();
    server.signal("TERM");
    assert_eq!(client.try_read().unwrap(), None);
    let (status, _, body) = request(port, "GET", "/readyz");
    assert_eq!((status, body.as_str()), (503, "shutting down\n"));
    assert_eq!(request(port, "GET", "/healthz").0, 200);
    assert_eq!(
        value(&scrape(port), "tidegate_dirty_entries", "session"),
        1.0
    );
    drop(database);
    assert_eq!(server.wait(), 0);
}

#[test]
fn bad_requests_cannot_hurt() {
    let folder = Folder::new();
    let server = folder.serve_config(CONFIG);
    let port = admin_port(&server);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        assert_eq!(request(port, method, "/metrics").0, 405, "{method}");
    }
    let long = "x".repeat(1 << 20);
    let bad: [Vec<u8>; 8] = [
        b"\x00\xff\x00\xff\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /metrics HTTP/9.9\r\n\r\n".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5000)).into_bytes(),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
    ];
    for bytes in &bad {
        let answer = converse(port, bytes);
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.0 4"),
            "{answer}"
        );
    }
    // Those who say nothing keep nobody else from being answered, however many they are.
    let silent: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    assert_eq!(request(port, "GET", "/healthz").0, 200);
    drop(silent);
    assert_eq!(server.terminate(), 0);
}

#[test]
fn without_an_address_nothing_listens_and_a_taken_one_is_named() {
    let folder = Folder::new();
    assert!(!folder.serve().words().contains("http://"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = folder.write("taken.toml", &format!("[server]\nadmin = '{address}'\n"));
    let data = folder.data();
    let ended = support::run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 4);
    assert!(ended.stderr.contains("server.admin"), "{}", ended.stderr);
}
