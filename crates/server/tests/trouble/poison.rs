//! One row that the database refuses among a thousand that go together.

use std::time::{Duration, Instant};

use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

use super::figure;
use super::support::{Client, Folder, bulk, field, integer, ok};

const ROWS: usize = 1000;
const TURNS: usize = 5;

fn middle(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

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
         linger = '1h'\nbatch = 1001\n",
        postgres.url(&database)
    ));
    postgres.sql(
        &database,
        "alter table strict add constraint no_bad check (value not like 'bad%')",
    );
    let mut client = server.connect();
    // Connections, statements and caches get warm first, and so does the size of batches.
    for round in 0..3 {
        flush_a_thousand(&mut client, round, None);
    }
    // In turns, so that what else the machine does falls on both.
    let (mut normal, mut delayed) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        normal.push(flush_a_thousand(&mut client, 50 + turn, None).0);
        let (took, report) = flush_a_thousand(&mut client, 100 + turn, Some(613 + 31 * turn));
        delayed.push(took);
        assert_eq!(figure(&report, "left"), 0);
        assert_eq!(figure(&report, "parked"), 1 + i64::try_from(turn).unwrap());
    }
    let (normal, delayed) = (middle(normal), middle(delayed));
    println!(
        "a thousand rows: {normal:?}; with a poison row among them: {delayed:?}, {:.2} times as long",
        delayed.as_secs_f64() / normal.as_secs_f64()
    );
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
