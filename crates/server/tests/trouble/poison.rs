//! One row that the database refuses among a thousand that go together.

use std::time::{Duration, Instant};

use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

use super::figure;
use super::support::{Client, Folder, bulk, field, integer, ok};

const ROWS: usize = 1000;

/// Writes a thousand rows, one of them bad if that is asked for, and flushes them; how long the flush took.
fn flush_a_thousand(client: &mut Client, round: usize, bad: Option<usize>) -> (Duration, Reply) {
    let lines: Vec<String> = (0..ROWS)
        .map(|row| {
            let word = if bad == Some(row) { "bad" } else { "good" };
            format!("SET strict:{round}:{row} {word}{row}")
        })
        .collect();
    client.send(&lines);
    for _ in 0..ROWS {
        assert_eq!(client.read(), ok());
    }
    let start = Instant::now();
    let report = client.ask("TIDEGATE FLUSH CLASS strict TIMEOUT 30000");
    (start.elapsed(), report)
}

#[test]
fn one_poison_row_of_a_thousand_does_not_hold_up_the_others() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[store]\nurl = '{}'\nlanes = 1\n[[class]]\nname = 'strict'\nkeys = 'strict:*'\nstrategy = 'write-back'\n\
         linger = '1h'\nbatch = 1000\n",
        postgres.url(&database)
    ));
    postgres.sql(
        &database,
        "alter table strict add constraint no_bad check (value not like 'bad%')",
    );
    let mut client = server.connect();
    // Connections, statements and caches get warm first, and so does the size of batches.
    let mut normal: Vec<Duration> = (0..6)
        .map(|round| flush_a_thousand(&mut client, round, None).0)
        .skip(3)
        .collect();
    normal.sort_unstable();
    let normal = normal[1];
    let (delayed, report) = flush_a_thousand(&mut client, 100, Some(613));
    println!(
        "a thousand rows: {normal:?}; with a poison row among them: {delayed:?}, {:.2} times as long",
        delayed.as_secs_f64() / normal.as_secs_f64()
    );
    assert_eq!(figure(&report, "flushed"), 999);
    assert_eq!(figure(&report, "left"), 0);
    assert_eq!(figure(&report, "parked"), 1);
    let rows = postgres.sql(
        &database,
        "select count(*) from strict where key like 'strict:100:%'",
    );
    assert_eq!(rows, "999");
    let letter = client.ask("TIDEGATE DEADLETTERS SHOW strict:100:613");
    assert_eq!(field(&letter, "code"), bulk("23514"));
    assert_eq!(field(&letter, "attempts"), integer(1));
    // Generous: both cores may be busy with other tests.
    assert!(
        delayed < normal * 10 + Duration::from_millis(500),
        "{delayed:?} after {normal:?}"
    );
    assert_eq!(server.terminate(), 6);
}
