//! One row that breaks a constraint, in a batch of a thousand, over a real PostgreSQL: it is a dead letter, and
//! the others are in the store. How long that takes, beside a batch without it, is printed: about twice as long.

#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::time::{Duration, Instant};

use tidegate::{Class, Durability, Gate, Strategy, open_store};
use tidegate_testkit::servers::Postgres;

const DEADLINE: Duration = Duration::from_secs(60);
const ROWS: usize = 1000;
const TURNS: usize = 9;

async fn open(url: &str) -> Gate {
    let class = Class::new("item", "item:*")
        .strategy(Strategy::WriteBack)
        .durability(Durability::Memory)
        // Longer than the test: flushed when it is asked for.
        .linger(Duration::from_secs(3_600))
        .batch(ROWS + 1);
    let builder = tidegate::builder().store_arc(open_store(url).await.unwrap());
    builder.lanes(1).class(class).open().await.unwrap()
}

/// Writes a thousand rows, flushes them, and returns how long that took.
#[expect(clippy::disallowed_methods, reason = "a real server takes real time")]
async fn flush(gate: &Gate, turn: usize, poison: Option<usize>) -> Duration {
    for row in 0..ROWS {
        let value = match Some(row) == poison {
            true => "!poison",
            false => "a value of some length, as values are",
        };
        gate.set(format!("item:{turn}:{row}"), value).await.unwrap();
    }
    let began = Instant::now();
    let report = gate.flush(DEADLINE).await.unwrap();
    let took = began.elapsed();
    let parked = u64::from(poison.is_some());
    assert_eq!((report.left, report.parked), (0, parked), "{report:?}");
    assert_eq!(report.flushed, ROWS as u64 - parked);
    for letter in gate.dead_letters(None, None, 10) {
        assert_eq!(letter.code.as_deref(), Some("23514"), "{letter:?}");
        let discarded = gate.discard_dead_letter(&letter.key, letter.version).await;
        assert!(discarded.unwrap());
    }
    took
}

fn median(mut figures: Vec<Duration>) -> Duration {
    figures.sort_unstable();
    figures[figures.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poison_row_in_a_thousand_is_a_dead_letter_and_the_others_are_stored() {
    let server = Postgres::start();
    let database = server.fresh_database();
    let gate = open(&server.url(&database)).await;
    server.sql(
        &database,
        "alter table item add constraint well_behaved check (value not like '!%')",
    );
    flush(&gate, 0, None).await;
    let (mut well, mut poisoned) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        well.push(flush(&gate, 2 * turn + 1, None).await);
        let guilty = turn * (ROWS - 1) / (TURNS - 1);
        poisoned.push(flush(&gate, 2 * turn + 2, Some(guilty)).await);
    }
    let (well, poisoned) = (median(well), median(poisoned));
    println!("{well:?} for {ROWS} rows, {poisoned:?} with one that is refused");
    gate.drain(DEADLINE).await.unwrap();
}
