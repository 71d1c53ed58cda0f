//! The server ends at every point where a crash could cost something, before and after it, under a load of puts,
//! deletes, counters and writes that the store refuses. After each end: what was acknowledged is read, and after a drain
//! it is in the store; no addition is there twice; every refused write is a dead letter.
//!
//! `./kill-loop 200` runs 200 rounds over each store; `cargo test --all-features` runs 20.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the load and its end are real time"
)]

#[path = "../support/mod.rs"]
mod support;

mod ledger;
mod rows;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ledger::Ledger;
use rows::Rows;
use support::{Client, Folder, Server, bulk, field};
use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

const WRITERS: usize = 6;

/// The points of `src/fail_point`, and after how many hits at most a round ends there.
const POINTS: [(&str, u64); 9] = [
    ("append", 300),
    ("sync", 300),
    ("acknowledge", 300),
    ("apply", 40),
    ("load", 3),
    ("park", 10),
    ("discard", 4),
    ("checkpoint", 2),
    ("trim", 40),
];

/// How long a round may go on without reaching its point, before it is ended from outside.
const ROUND: Duration = Duration::from_millis(2500);

/// Small segments, so that there are many and starts are quick.
const CLASSES: &str = "
    [journal]
    segment = '256KiB'
    [[class]]
    name = 'session'
    keys = 'session:*'
    strategy = 'write-back'
    linger = '5ms'
    batch = 20
    [[class]]
    name = 'count'
    keys = 'count:*'
    strategy = 'write-back'
    linger = '5ms'
    delta = true
    [[class]]
    name = 'strict'
    keys = 'strict:*'
    strategy = 'write-back'
    linger = '5ms'
";

fn rounds() -> u64 {
    std::env::var("TIDEGATE_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

/// A number that depends on the round and nothing else.
fn mixed(round: u64) -> u64 {
    let mut x = round.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 31;
    x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

struct Loop<'a> {
    folder: Folder,
    config: String,
    rows: Rows<'a>,
    ledger: Ledger,
    /// How often each point was where it ended.
    reached: BTreeMap<String, u32>,
}

impl<'a> Loop<'a> {
    fn new(folder: Folder, rows: Rows<'a>) -> Self {
        let config = format!("{}{CLASSES}", rows.section());
        let config = folder.write("tidegate.toml", &config);
        let this = Self {
            folder,
            config: config.to_str().unwrap().to_owned(),
            rows,
            ledger: Ledger::default(),
            reached: BTreeMap::new(),
        };
        // The first start makes the tables, and then the store becomes strict.
        assert_eq!(this.serve().terminate(), 0);
        this.rows.refuse_bad_values();
        this
    }

    fn serve(&self) -> Server {
        self.folder.serve_with(&["--config", &self.config])
    }

    /// Load until the server ends at a point, or for so long; then what its next life has is checked.
    fn round(&mut self, round: u64) {
        let (point, hits) = POINTS[usize::try_from(round / 2).unwrap() % POINTS.len()];
        let side = ["before", "after"][usize::try_from(round % 2).unwrap()];
        let place = format!("{point}:{side}:{}", 1 + mixed(round) % hits);
        let environment = [("TIDEGATE_FAIL_POINT", place.as_str())];
        let started = self
            .folder
            .try_serve(&["--config", &self.config], &environment);
        let ended = match started {
            // It may be reached while the journal is replayed.
            Err(_) => true,
            Ok(server) => self.load(server, round),
        };
        let what = if ended {
            format!("{point}:{side}")
        } else {
            "elsewhere".to_owned()
        };
        *self.reached.entry(what).or_default() += 1;
        // Somebody else counts too, before what is in the journal comes back.
        if mixed(round) & 1 == 1 {
            let added = self.rows.add_from_outside("count:all", 1000);
            self.ledger.added_from_outside("count:all", added);
        }
        self.check(round, &place);
    }

    /// True if the server ended by itself.
    fn load(&mut self, mut server: Server, round: u64) -> bool {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (stop, port) = (Arc::clone(&stop), server.port());
                let start = self.ledger.clone();
                thread::spawn(move || writer::write(port, number, round, start, &stop))
            })
            .collect();
        let start = Instant::now();
        let mut ended = false;
        while !ended && start.elapsed() < ROUND {
            thread::sleep(Duration::from_millis(2));
            ended = server.has_ended();
        }
        server.kill9();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            self.ledger.merge(writer.join().unwrap());
        }
        ended
    }

    /// Holds what is read against what is known; with all that the server knows of the key if they differ.
    fn settle(&mut self, client: &mut Client, key: &str, told: &str) {
        let read = text(&client.ask(&format!("GET {key}")));
        if let Err(why) = self.ledger.settle(key, read) {
            let explained = client.ask(&format!("TIDEGATE EXPLAIN {key}"));
            let letter = client.ask(&format!("TIDEGATE DEADLETTERS SHOW {key} VALUE"));
            let row = self.rows.load(&[key.to_owned()]);
            panic!("{told}: {why}\nexplained: {explained:?}\nletter: {letter:?}\nrow: {row:?}");
        }
    }

    fn check(&mut self, round: u64, place: &str) {
        let server = self.serve();
        let mut client = server.connect();
        let told = format!("round {round}, ended at {place}");
        for key in self.ledger.value_keys() {
            self.settle(&mut client, &key, &told);
        }
        let report = client.ask("TIDEGATE FLUSH TIMEOUT 30000");
        let told = format!("{told}; flush said {report:?}");
        // Before the flush a count is what this process knows, without what others added in between.
        for key in self.ledger.count_keys() {
            self.settle(&mut client, &key, &told);
        }
        let refused = self.ledger.refused();
        assert_eq!(dead_letters(&mut client), refused, "{told}: dead letters");
        let code = server.terminate();
        let expected = if refused.is_empty() { 0 } else { 6 };
        assert_eq!(code, expected, "{told}\n{}", self.folder.stderr());
        let mut keys = self.ledger.value_keys();
        keys.extend(self.ledger.count_keys());
        for (key, row) in keys.iter().zip(self.rows.load(&keys)) {
            self.ledger.check_row(key, row, &told);
        }
    }
}

fn text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Bulk(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        Reply::Null => None,
        other => panic!("{other:?}"),
    }
}

/// The keys of all dead letters, in order.
fn dead_letters(client: &mut Client) -> Vec<String> {
    let Reply::Array(letters) = client.ask("TIDEGATE DEADLETTERS LIST COUNT 1000") else {
        panic!("no list");
    };
    letters
        .iter()
        .map(|letter| {
            assert_eq!(field(letter, "reason"), bulk("refused"));
            text(&field(letter, "key")).unwrap()
        })
        .collect()
}

impl Loop<'_> {
    /// Runs; what happened, in words.
    fn run(mut self, rounds: u64) -> String {
        for round in 0..rounds {
            self.round(round);
        }
        let elsewhere = self.reached.get("elsewhere").copied().unwrap_or(0);
        assert!(
            u64::from(elsewhere) * 2 <= rounds,
            "most rounds did not reach their point: {:?}",
            self.reached
        );
        self.ledger.expect_work(rounds);
        format!(
            "{rounds} rounds, ended at {:?}; {}",
            self.reached, self.ledger
        )
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_at_any_point_over_sqlite() {
    let folder = Folder::new();
    let file = folder.data().join("store.db");
    println!(
        "SQLite: {}",
        Loop::new(folder, Rows::sqlite(file)).run(rounds())
    );
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_at_any_point_over_postgresql() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let rows = Rows::postgres(postgres, database);
    println!(
        "PostgreSQL: {}",
        Loop::new(Folder::new(), rows).run(rounds())
    );
}
