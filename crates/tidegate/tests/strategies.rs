//! Every strategy over every store, with the real clock: what is acknowledged, what is in the store when, what
//! readers see, and what is there after the next start.

#![cfg(all(feature = "journal", feature = "postgres", feature = "sqlite"))]
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::journal::{FileJournal, JournalConfig};
use tidegate::memory::MemoryStore;
use tidegate::port::{Store, TableSpec, Timestamp};
use tidegate::{
    Change, Class, Durability, Entry, ErrorKind, Gate, Key, Lookup, Strategy, open_store,
};
use tidegate_testkit::servers::Postgres;

const DEADLINE: Duration = Duration::from_secs(20);

/// A place where rows outlive a gate.
enum Place {
    Memory(MemoryStore),
    Url(String),
}

impl Place {
    async fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::new(store.clone()),
            Self::Url(url) => open_store(url).await.unwrap(),
        }
    }

    /// The row of a key, read past every gate.
    async fn row(&self, class: &str, key: &str) -> Option<Entry> {
        let store = self.store().await;
        let table = store.open_table(&TableSpec::named(class)).await.unwrap();
        let now = Timestamp::from_millis(1);
        let rows = store.load(&[(table, Key::from(key))], now).await.unwrap();
        store.close().await;
        rows.into_iter().next().unwrap()
    }
}

async fn open(place: &Place, folder: &Path, strategy: Strategy) -> Gate {
    let mut journal = JournalConfig::new(folder.join("journal"));
    journal.segment_bytes = 1 << 20;
    tidegate::builder()
        .store_arc(place.store().await)
        .journal(FileJournal::open(journal).unwrap())
        // Long enough that nothing is flushed before it is asked for.
        .class(
            Class::new("item", "item:*")
                .strategy(strategy)
                .linger(Duration::from_secs(600)),
        )
        .open()
        .await
        .unwrap()
}

fn add_one(current: Option<&Entry>) -> (Option<Change>, i64) {
    let text = current.and_then(|entry| std::str::from_utf8(&entry.value).ok());
    let next = text.map_or(0, |text| text.parse::<i64>().unwrap()) + 1;
    (
        Some(Change::Put {
            value: Bytes::from(next.to_string()),
            expires_at: None,
        }),
        next,
    )
}

async fn value(gate: &Gate, key: &str) -> Option<Bytes> {
    gate.get(key).await.unwrap()
}

async fn a_life(place: &Place, strategy: Strategy) {
    let folder = tempfile::tempdir().unwrap();
    let gate = open(place, folder.path(), strategy).await;
    let name = strategy.as_str();

    let written = gate.set("item:1", "one").await.unwrap();
    assert!(!written.existed, "{name}");
    let row = place.row("item", "item:1").await;
    match strategy {
        Strategy::WriteThrough | Strategy::WriteAround => {
            assert_eq!(written.receipt.durability, Durability::Store);
            let row = row.unwrap();
            assert_eq!(
                (row.value, row.version),
                (Bytes::from("one"), written.receipt.version)
            );
        }
        Strategy::WriteBack => {
            assert_eq!(
                (written.receipt.durability, row),
                (Durability::Journal, None)
            );
        }
        _ => assert_eq!(
            (written.receipt.durability, row),
            (Durability::Memory, None)
        ),
    }
    let cached = matches!(gate.lookup(b"item:1"), Lookup::Hit(_));
    assert_eq!(cached, strategy != Strategy::WriteAround, "{name}");
    assert_eq!(value(&gate, "item:1").await.unwrap(), "one", "{name}");

    assert!(gate.set("item:1", "uno").await.unwrap().existed, "{name}");
    assert_eq!(value(&gate, "item:1").await.unwrap(), "uno", "{name}");
    for expected in 1..=3 {
        assert_eq!(
            gate.update("item:n", add_one).await.unwrap().0,
            expected,
            "{name}"
        );
    }
    let binary: Vec<u8> = (0..=255).collect();
    gate.set("item:binary", binary.clone()).await.unwrap();
    gate.set("item:empty", "").await.unwrap();
    gate.set("item:gone", "soon").await.unwrap();
    assert!(gate.delete("item:gone").await.unwrap().existed, "{name}");
    assert!(!gate.delete("item:never").await.unwrap().existed, "{name}");
    let past = Timestamp::from_millis(1_000);
    gate.set_with("item:dead", "on arrival", Some(past))
        .await
        .unwrap();
    let future = gate.now().after(Duration::from_secs(3600));
    gate.set_with("item:mortal", "for an hour", Some(future))
        .await
        .unwrap();
    assert_eq!(gate.count().await.unwrap(), 5, "{name}");

    let report = gate.drain(DEADLINE).await.unwrap();
    assert!(report.is_complete(), "{name}: {report:?}");
    drop(gate);
    if strategy == Strategy::CacheOnly {
        let gate = open(place, folder.path(), strategy).await;
        assert_eq!(
            value(&gate, "item:1").await,
            None,
            "what is only cached ends with the process"
        );
        return;
    }
    let gate = open(place, folder.path(), strategy).await;
    assert_eq!(value(&gate, "item:1").await.unwrap(), "uno", "{name}");
    assert_eq!(value(&gate, "item:n").await.unwrap(), "3", "{name}");
    assert_eq!(value(&gate, "item:binary").await.unwrap(), binary, "{name}");
    assert_eq!(value(&gate, "item:empty").await.unwrap(), "", "{name}");
    for absent in ["item:gone", "item:never", "item:dead"] {
        assert_eq!(value(&gate, absent).await, None, "{name} {absent}");
    }
    let mortal = gate.read(b"item:mortal").await.unwrap().entry.unwrap();
    assert_eq!(mortal.expires_at, Some(future), "{name}");
    let row = place.row("item", "item:1").await.unwrap();
    let after = gate.set("item:1", "eins").await.unwrap();
    assert!(
        after.receipt.version > row.version,
        "{name}: a later start is newer"
    );
    assert!(gate.drain(DEADLINE).await.unwrap().is_complete());
    assert_eq!(
        place.row("item", "item:1").await.unwrap().value,
        "eins",
        "{name}"
    );
    drop(gate);

    let gate = open(place, folder.path(), Strategy::ReadOnly).await;
    assert_eq!(value(&gate, "item:1").await.unwrap(), "eins");
    assert_eq!(
        gate.set("item:1", "x").await.unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    gate.drain(DEADLINE).await.unwrap();
}

const WRITERS: [Strategy; 4] = [
    Strategy::WriteThrough,
    Strategy::WriteAround,
    Strategy::WriteBack,
    Strategy::CacheOnly,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_memory() {
    for strategy in WRITERS {
        a_life(&Place::Memory(MemoryStore::new()), strategy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_sqlite() {
    for strategy in WRITERS {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        a_life(&Place::Url(url), strategy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_postgresql() {
    for strategy in WRITERS {
        let postgres = Postgres::shared();
        a_life(
            &Place::Url(postgres.url(&postgres.fresh_database())),
            strategy,
        )
        .await;
    }
}

/// The same keys, one strategy after the other: no write of an earlier start comes back, whoever issued the
/// versions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_may_change_its_strategy_between_starts() {
    let postgres = Postgres::shared();
    let file = tempfile::tempdir().unwrap();
    for place in [
        Place::Memory(MemoryStore::new()),
        Place::Url(format!("sqlite:{}", file.path().join("store.db").display())),
        Place::Url(postgres.url(&postgres.fresh_database())),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..8 {
            let strategy = [
                Strategy::WriteBack,
                Strategy::WriteThrough,
                Strategy::WriteAround,
            ][round % 3];
            let gate = open(&place, folder.path(), strategy).await;
            if round > 0 {
                let before = format!("{}", round - 1);
                assert_eq!(
                    value(&gate, "item:1").await.unwrap(),
                    before,
                    "{}",
                    strategy.as_str()
                );
            }
            gate.set("item:1", format!("{round}")).await.unwrap();
            if round % 2 == 0 {
                assert!(gate.drain(DEADLINE).await.unwrap().is_complete());
            } else {
                // What write-back has not flushed is left to the journal and the next start.
                gate.drain(Duration::ZERO).await.unwrap();
            }
        }
    }
}
