//! The server is killed with SIGKILL under write-back load, again and again with different timing: whatever
//! it acknowledged is read after the next start, and is in the store after a drain.
//!
//! `TIDEGATE_KILLS=200 cargo test -p tidegate-server --test crash` kills more often.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the moment of a kill is real time"
)]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::{Client, Folder, integer, ok};
use tidegate::port::{Store, TableSpec, Timestamp};
use tidegate::{Key, open_store};
use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

const WRITERS: usize = 6;
/// Few keys, so that writes coalesce and entries are dirty again while they are flushed.
const KEYS: usize = 5;

/// What is known of a key: the last number acknowledged, and the last one asked for. A number of 0 is a
/// delete, else the key holds it.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    acknowledged: u64,
    asked: u64,
}

type Ledger = Arc<Mutex<HashMap<String, Known>>>;

fn rounds() -> u64 {
    std::env::var("TIDEGATE_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

/// Writes rising numbers to the keys of one writer until the server is gone.
fn write(port: u16, writer: usize, ledger: &Ledger, stop: &AtomicBool) {
    let mut client = Client::connect(port);
    let mut turn = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let key = format!("session:{writer}:{}", turn % KEYS);
        let number = {
            let mut ledger = ledger.lock().unwrap();
            let known = ledger.entry(key.clone()).or_default();
            known.asked += 1;
            known.asked
        };
        // Every eleventh write counts up instead of setting, every seventh is written after a delete.
        if turn.is_multiple_of(7) {
            client.send(&[format!("DEL {key}"), format!("SET {key} {number}")]);
            if client.try_read().ok().flatten().is_none() {
                return;
            }
        } else {
            client.send(&[format!("SET {key} {number}")]);
        }
        match client.try_read() {
            Ok(Some(reply)) => assert_eq!(reply, ok()),
            _ => return,
        }
        ledger.lock().unwrap().entry(key).or_default().acknowledged = number;
    }
}

/// A number that a reader or the store has, held against what is known.
fn check(key: &str, found: Option<u64>, known: Known, round: u64, deleted_may_be: bool) {
    let Some(found) = found else {
        // A delete that was under way when the kill came may have happened, its set not.
        assert!(
            known.acknowledged == 0 || deleted_may_be && known.asked > known.acknowledged,
            "round {round}: {key} is gone, {known:?}"
        );
        return;
    };
    assert!(
        found >= known.acknowledged && found <= known.asked,
        "round {round}: {key} is {found}, {known:?}"
    );
}

fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Bulk(bytes) => Some(std::str::from_utf8(bytes).unwrap().parse().unwrap()),
        Reply::Null => None,
        other => panic!("{other:?}"),
    }
}

async fn stored(url: &str, keys: &[String]) -> Vec<Option<u64>> {
    let store: Arc<dyn Store> = open_store(url).await.unwrap();
    let table = store
        .open_table(&TableSpec::named("session"))
        .await
        .unwrap();
    let rows: Vec<_> = keys
        .iter()
        .map(|key| (table, Key::from(key.as_str())))
        .collect();
    let entries = store.load(&rows, Timestamp::from_millis(1)).await.unwrap();
    store.close().await;
    let number = |value: &[u8]| std::str::from_utf8(value).unwrap().parse().unwrap();
    entries
        .into_iter()
        .map(|entry| entry.map(|entry| number(&entry.value)))
        .collect()
}

fn kill_again_and_again(store_url: Option<&str>, rounds: u64) {
    let folder = Folder::new();
    let store = store_url.map_or(String::new(), |url| format!("[store]\nurl = \"{url}\"\n"));
    let config = format!(
        "{store}[[class]]\nname = \"session\"\nkeys = \"session:*\"\nstrategy = \"write-back\"\nlinger = \"5ms\"\n"
    );
    let own = format!("sqlite:{}", folder.data().join("store.db").display());
    let url = store_url.unwrap_or(&own);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ledger: Ledger = Arc::default();
    let mut acknowledged = 0;
    for round in 0..rounds {
        let server = folder.serve_config(&config);
        let known = ledger.lock().unwrap().clone();
        let mut reader = server.connect();
        for (key, known) in &known {
            check(
                key,
                number(&reader.ask(&format!("GET {key}"))),
                *known,
                round,
                true,
            );
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (ledger, stop, port) = (Arc::clone(&ledger), Arc::clone(&stop), server.port());
                thread::spawn(move || write(port, writer, &ledger, &stop))
            })
            .collect();
        // From a few milliseconds to some hundred: before the first flush, in the middle of many.
        thread::sleep(Duration::from_millis(5 + (round * 37) % 300));
        server.kill9();
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        acknowledged = ledger
            .lock()
            .unwrap()
            .values()
            .map(|known| known.acknowledged)
            .sum();
        // Every fifth time the next life does nothing but drain.
        if round % 5 == 4 {
            let server = folder.serve_config(&config);
            assert_eq!(
                server.terminate(),
                0,
                "a drain that leaves nothing\n{}",
                folder.stderr()
            );
            let known: Vec<_> = ledger.lock().unwrap().clone().into_iter().collect();
            let keys: Vec<String> = known.iter().map(|(key, _)| key.clone()).collect();
            let rows = runtime.block_on(stored(url, &keys));
            for ((key, known), row) in known.iter().zip(rows) {
                check(key, row, *known, round, true);
            }
        }
    }
    assert!(
        acknowledged > rounds * 10,
        "only {acknowledged} writes were acknowledged"
    );
    // At the end the store has exactly what is read.
    let server = folder.serve_config(&config);
    let mut client = server.connect();
    let keys: Vec<String> = ledger.lock().unwrap().keys().cloned().collect();
    let read: Vec<_> = keys
        .iter()
        .map(|key| number(&client.ask(&format!("GET {key}"))))
        .collect();
    client.expect("EXISTS nothing", integer(0));
    assert_eq!(server.terminate(), 0);
    assert_eq!(runtime.block_on(stored(url, &keys)), read);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_on_the_embedded_default() {
    kill_again_and_again(None, rounds());
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_over_postgresql() {
    let postgres = Postgres::shared();
    let url = postgres.url(&postgres.fresh_database());
    kill_again_and_again(Some(&url), rounds().div_ceil(3).max(5));
}
