//! PostgreSQL is killed and started again under load, several times: nothing acknowledged is lost, nothing
//! stale is read at any moment, and the server goes on without a restart.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![expect(clippy::disallowed_methods, reason = "outages are real time")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Client, Folder, error_text, ok};
use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

const KEYS: usize = 4;
const OUTAGES: usize = 3;

/// What the one client of a key knows of it.
#[derive(Default, Debug)]
struct Known {
    acknowledged: u64,
    asked: u64,
}

/// One client, the only one of its keys: writes rising numbers, and reads each back in between. Returns what
/// it knows, how often it was acknowledged and how often it was told of a failure.
fn work(port: u16, class: &str, client_number: usize, stop: &AtomicBool) -> (Vec<Known>, u64, u64) {
    let mut client = Client::connect(port);
    let mut known: Vec<Known> = (0..KEYS).map(|_| Known::default()).collect();
    let (mut done, mut failed) = (0, 0);
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let key = turn % KEYS;
        let name = format!("{class}:{client_number}:{key}");
        known[key].asked += 1;
        let number = known[key].asked;
        match client.ask(&format!("SET {name} {number}")) {
            reply if reply == ok() => {
                known[key].acknowledged = number;
                done += 1;
            }
            reply => {
                let text = error_text(&reply);
                let word = text.split(' ').next().unwrap();
                assert!(
                    ["UNAVAILABLE", "UNKNOWN", "OVERLOADED"].contains(&word),
                    "{text}"
                );
                failed += 1;
            }
        }
        let known = &known[key];
        match client.ask(&format!("GET {name}")) {
            Reply::Bulk(bytes) => {
                let read: u64 = std::str::from_utf8(&bytes).unwrap().parse().unwrap();
                let fits = read >= known.acknowledged && read <= known.asked;
                assert!(fits, "{name} is read as {read}, {known:?}");
            }
            Reply::Null => assert_eq!(known.acknowledged, 0, "{name} is absent, {known:?}"),
            reply => {
                let text = error_text(&reply);
                assert!(
                    text.starts_with("UNAVAILABLE") || text.starts_with("OVERLOADED"),
                    "{text}"
                );
                failed += 1;
            }
        }
    }
    (known, done, failed)
}

#[test]
fn postgresql_killed_and_restarted_under_load_loses_nothing_and_shows_nothing_stale() {
    let mut postgres = Postgres::start();
    let database = postgres.fresh_database();
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[store]\nurl = \"{}\"\n\
         [[class]]\nname = \"through\"\nkeys = \"through:*\"\n\
         [[class]]\nname = \"around\"\nkeys = \"around:*\"\nstrategy = \"write-around\"\nttl = \"10s\"\n\
         [[class]]\nname = \"back\"\nkeys = \"back:*\"\nstrategy = \"write-back\"\n",
        postgres.url(&database)
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = ["through", "around", "back"]
        .into_iter()
        .flat_map(|class| (0..3).map(move |number| (class, number)))
        .map(|(class, number)| {
            let (stop, port) = (Arc::clone(&stop), server.port());
            (
                class,
                number,
                thread::spawn(move || work(port, class, number, &stop)),
            )
        })
        .collect();
    for outage in 0..OUTAGES {
        thread::sleep(Duration::from_millis(400 + 230 * outage as u64));
        postgres.kill9();
        thread::sleep(Duration::from_millis(300 + 400 * outage as u64));
        postgres.restart();
    }
    thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let mut rows = 0;
    let mut client = server.connect();
    // Writes go through again, without a restart of anything but the database.
    let start = Instant::now();
    while client.ask("SET through:after 1") != ok() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the server did not find its store again"
        );
        thread::sleep(Duration::from_millis(50));
    }
    let (mut done, mut failed) = (0, 0);
    for (class, number, worker) in clients {
        let (known, acknowledged, failures) = worker.join().unwrap();
        done += acknowledged;
        failed += failures;
        client.ask("TIDEGATE FLUSH TIMEOUT 20000");
        for (key, known) in known.iter().enumerate() {
            let name = format!("{class}:{number}:{key}");
            let Reply::Bulk(read) = client.ask(&format!("GET {name}")) else {
                panic!("{name} is gone")
            };
            let read = String::from_utf8(read.to_vec()).unwrap();
            let value: u64 = read.parse().unwrap();
            assert!(
                value >= known.acknowledged && value <= known.asked,
                "{name} is {value}, {known:?}"
            );
            let row = postgres.sql(
                &database,
                &format!("select value from \"{class}\" where key = '{name}'"),
            );
            assert_eq!(row.trim(), read, "{name}: the row is what is read");
            rows += 1;
        }
    }
    assert_eq!(rows, 9 * KEYS);
    assert!(
        done > 200 && failed > 0,
        "{done} acknowledged, {failed} failed: no outage was felt"
    );
    assert_eq!(server.terminate(), 0, "{}", folder.stderr());
}
