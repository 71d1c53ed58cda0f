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
