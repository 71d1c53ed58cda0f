//! Fifty connections count on one key: no increment is lost and none happens twice, whatever the strategy.

mod support;

use support::{Folder, bulk, ok};
use tidegate_resp::Reply;

const CONNECTIONS: usize = 50;
const INCREMENTS: usize = 40;

fn count(strategy: &str, pipelined: bool) {
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[[class]]\nname = 'counter'\nkeys = 'counter:*'\nstrategy = '{strategy}'\n"
    ));
    let port = server.port();
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = support::Client::connect(port);
                if pipelined {
                    client.send(&vec!["INCR counter:a"; INCREMENTS]);
                }
                let mut before = 0;
                for _ in 0..INCREMENTS {
                    let reply = if pipelined {
                        client.read()
                    } else {
                        client.ask("INCR counter:a")
                    };
                    let Reply::Integer(sum) = reply else {
                        panic!("{reply:?}")
                    };
                    assert!(sum > before, "{sum} after {before}");
                    before = sum;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread says why");
    }
    let sum = bulk(&(CONNECTIONS * INCREMENTS).to_string());
    let mut client = server.connect();
    client.expect("GET counter:a", sum.clone());
    client.ask("TIDEGATE FLUSH TIMEOUT 20000");
    if strategy != "cache-only" {
        // And the store has it.
        client.expect("FLUSHALL", ok());
        client.expect("GET counter:a", sum);
    }
}

#[test]
fn write_through_counts_exactly() {
    count("write-through", false);
    count("write-through", true);
}

#[test]
fn write_back_counts_exactly() {
    count("write-back", false);
    count("write-back", true);
}

#[test]
fn write_around_counts_exactly() {
    count("write-around", false);
    count("write-around", true);
}

#[test]
fn cache_only_counts_exactly() {
    count("cache-only", false);
    count("cache-only", true);
}

#[test]
fn a_class_of_deltas_counts_with_the_words_of_redis() {
    let folder = Folder::new();
    let server = folder.serve_config(
        "[[class]]\nname = 'counter'\nkeys = 'counter:*'\nstrategy = 'write-back'\ndelta = true\n",
    );
    let mut client = server.connect();
    client.expect("INCR counter:a", Reply::Integer(1));
    client.expect("DECRBY counter:a 5", Reply::Integer(-4));
    client.expect("GET counter:a", bulk("-4"));
    client.expect("SET counter:b 9223372036854775807 EX 1000", ok());
    let overflow = Reply::error("ERR increment or decrement would overflow");
    client.expect("INCR counter:b", overflow);
    client.expect("DECR counter:b", Reply::Integer(i64::MAX - 1));
    let Reply::Integer(left) = client.ask("TTL counter:b") else {
        panic!("no end of life");
    };
    assert!((990..=1000).contains(&left), "{left}");
    client.expect("SET counter:c text", ok());
    let wrong = Reply::error("ERR value is not an integer or out of range");
    client.expect("INCR counter:c", wrong.clone());
    client.expect("INCRBY counter:a x", wrong);
    client.expect("DEL counter:a", Reply::Integer(1));
    client.expect("INCRBY counter:a 3", Reply::Integer(3));
    assert_eq!(server.terminate(), 0);
    let database = rusqlite::Connection::open(folder.data().join("store.db")).unwrap();
    let row = |key: &str| -> String {
        let sql = "select value from counter where key = ?1";
        database.query_row(sql, [key], |row| row.get(0)).unwrap()
    };
    assert_eq!(row("counter:a"), "3");
    assert_eq!(row("counter:b"), "9223372036854775806");
    assert_eq!(row("counter:c"), "text");
}
