//! The horizon, with transactions that are held open.

use std::time::Duration;

use tidegate_core::port::{Batch, Proof, Store, StoreError};
use tidegate_testkit::servers::{Postgres, PostgresOptions};
use tokio_postgres::Client;

use crate::NOW;
use crate::opened::{Opened, open};

async fn number(client: &Client) -> u64 {
    let row = client
        .query_one("select pg_current_xact_id()::text::bigint", &[])
        .await;
    row.unwrap().get::<_, i64>(0).unsigned_abs()
}

/// The newest number that was given out is of a transaction that is open: the bound must be above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_is_waited_for() {
    let opened = Opened::new().await;
    let open = opened.client().await;
    open.batch_execute("begin").await.unwrap();
    let held = number(&open).await;
    let deadline = opened.horizon().await.now;
    opened.wait_past(deadline).await;
    let mut proof = Proof::of(deadline);
    let at_once = opened.horizon().await;
    assert!(
        at_once.oldest <= held && held < at_once.next,
        "{held} {at_once:?}"
    );
    for _ in 0..20 {
        // Others come and go.
        opened.apply(vec![opened.put("k", "x")]).await;
        assert!(!proof.learn(&opened.horizon().await));
    }
    open.batch_execute("commit").await.unwrap();
    for _ in 0..10_000 {
        if proof.learn(&opened.horizon().await) {
            return;
        }
    }
    panic!("never proven");
}

/// A batch that passed its limit in time and hangs in its commit is waited for, however late it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_hangs_in_its_commit_is_waited_for() {
    let opened = Opened::new().await;
    // Checked at the commit, behind the look at the clock.
    opened.sql(
        "create function hold() returns trigger language plpgsql as
         'begin perform pg_advisory_xact_lock(77); return null; end';
         create constraint trigger hold after insert on kv deferrable initially deferred
         for each row execute function hold()",
    );
    let holder = opened.client().await;
    let lock = "begin; select pg_advisory_xact_lock(77)";
    holder.batch_execute(lock).await.unwrap();
    let deadline = opened.soon(Duration::from_millis(300)).await;
    let batch = Batch::new(vec![opened.put("k", "x")], NOW).commit_by(Some(deadline));
    let store = std::sync::Arc::clone(&opened.store);
    let apply = tokio::spawn(async move { store.apply(&batch).await });
    opened.wait_until_locked(1).await;
    opened.wait_past(deadline).await;
    let mut proof = Proof::of(deadline);
    for _ in 0..20 {
        assert!(!proof.learn(&opened.horizon().await));
    }
    holder.batch_execute("commit").await.unwrap();
    // In time it was; and what is proven is seen.
    apply.await.unwrap().unwrap();
    for _ in 0..10_000 {
        if proof.learn(&opened.horizon().await) {
            assert!(opened.version("k").await > 0);
            return;
        }
    }
    panic!("never proven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_cannot_tell() {
    let mut server = Postgres::start_with(PostgresOptions::default());
    let url = server.url("postgres");
    let store = open(&url).await;
    store.many_nodes().unwrap().horizon().await.unwrap();
    std::fs::write(server.socket_folder().join("data/standby.signal"), "").unwrap();
    server.restart();
    let refused = store.many_nodes().unwrap().horizon().await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
}
