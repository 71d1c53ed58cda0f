//! The search for guilty writes finds exactly those, at a known price.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entry::{Change, Entry};
use crate::key::Key;
use crate::memory::MemoryStore;
use crate::port::{
    BoxFuture, Capabilities, Guard, Resolution, RowKey, Swept, TableId, TableSpec, Ticket,
};

/// Refuses every batch that holds a value beginning with '!'.
struct Picky {
    inner: MemoryStore,
    calls: AtomicUsize,
    /// Names the guilty write.
    tells: bool,
    /// Goes away with the call of this number.
    away_at: usize,
}

impl Store for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        self.inner.open_table(spec)
    }
    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.open_generation(at_least)
    }
    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        self.inner.load(keys, now)
    }
    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let bad = |w: &Write| w.value().is_some_and(|v| v.starts_with(b"!"));
        Box::pin(async move {
            if call >= self.away_at {
                return Err(StoreError::unknown(None, "away"));
            }
            match batch.writes.iter().position(bad) {
                Some(item) if self.tells => Err(StoreError::refused_item(item, "no")),
                Some(_) => Err(StoreError::refused(Some("23514"), "no")),
                None => self.inner.apply(batch).await,
            }
        })
    }
    fn resolve(&self, ticket: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        self.inner.resolve(ticket)
    }
    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        self.inner.scan(table, after, limit, now)
    }
    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.count(table, now)
    }
    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: std::time::Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>> {
        self.inner.sweep(table, now, remember, limit)
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.ping()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[derive(Default)]
struct Run {
    failed: Vec<bool>,
    unknown: usize,
    calls: usize,
    rows: u64,
}

impl Picky {
    fn new() -> Self {
        Self {
            inner: MemoryStore::new(),
            calls: AtomicUsize::new(0),
            tells: false,
            away_at: usize::MAX,
        }
    }

    fn run(self, bad: &[bool]) -> Run {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let table = self.open_table(&TableSpec::named("t")).await.unwrap();
            let writes = bad.iter().enumerate().map(|(i, bad)| Write {
                table,
                key: Key::from(i.to_string()),
                change: Change::Put {
                    value: Bytes::from_static(if *bad { b"!" } else { b"ok" }),
                    expires_at: None,
                },
                guard: Guard::Always,
            });
            let now = Timestamp::from_millis(1);
            let answers = apply(&self, writes.collect(), now, None).await;
            let unknown = |answer: &&Committed| matches!(answer, Err(StoreError::Unknown { .. }));
            Run {
                unknown: answers.iter().filter(unknown).count(),
                failed: answers.iter().map(Result::is_err).collect(),
                rows: self.count(table, now).await.unwrap(),
                calls: self.calls.into_inner(),
            }
        })
    }
}

fn one_of(n: usize, guilty: usize) -> Vec<bool> {
    (0..n).map(|place| place == guilty).collect()
}

proptest! {
    #[test]
    fn exactly_the_guilty_writes_fail(bad in prop::collection::vec(any::<bool>(), 1..80), tells: bool) {
        let run = Picky { tells, ..Picky::new() }.run(&bad);
        prop_assert_eq!(&run.failed, &bad);
        prop_assert_eq!(run.rows as usize, bad.iter().filter(|bad| !**bad).count());
    }

    #[test]
    fn when_the_store_goes_away_what_was_not_sent_is_not_unknown(
        bad in prop::collection::vec(any::<bool>(), 1..80),
        away_at in 1_usize..12,
    ) {
        let run = Picky { away_at, ..Picky::new() }.run(&bad);
        let good = bad.iter().filter(|bad| !**bad).count();
        prop_assert!(run.rows as usize <= good);
        // Only what was sent by then: at most one step of the search more.
        prop_assert!(run.calls < away_at + PARTS);
        let stored = run.failed.iter().filter(|failed| !**failed).count();
        prop_assert_eq!(stored as u64, run.rows, "nothing is said to be stored that is not");
        prop_assert!(run.unknown + stored <= bad.len());
    }
}

#[test]
fn one_guilty_write_in_a_thousand_costs_about_twice_the_logarithm() {
    for guilty in [0, 1, 499, 500, 999] {
        let bad = one_of(1000, guilty);
        let run = Picky::new().run(&bad);
        assert_eq!(run.failed, bad);
        assert!(run.calls <= 1 + 2 * 10, "{} transactions", run.calls);
    }
}

#[test]
fn many_guilty_writes_that_the_store_names_do_not_cost_a_transaction_each() {
    let bad: Vec<bool> = (0..1000).map(|place| place % 100 == 99).collect();
    let run = Picky {
        tells: true,
        ..Picky::new()
    }
    .run(&bad);
    assert_eq!(run.failed, bad);
    assert!(run.calls < 100, "{} transactions", run.calls);
}
