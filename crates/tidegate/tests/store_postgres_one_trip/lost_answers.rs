//! What becomes of a batch whose answer is lost, that is held up, or whose caller goes away.

use std::sync::Arc;

use tidegate_core::port::{Resolution, Store, StoreError, TableSpec};

use crate::opened::{Opened, client, puts, try_open, value};
use crate::wire::{Proxy, Wire};

/// A store behind a wire that listens for the batch itself, with a table that holds `k` = `old`.
async fn behind_a_wire(options: &str) -> (Proxy, Opened) {
    let direct = Opened::new("").await;
    let proxy = Proxy::start(direct.postgres.port(), b"lose me");
    let url = direct.postgres.url(&direct.database);
    let url = url.replace(&direct.postgres.port().to_string(), &proxy.port.to_string());
    let store = try_open(&format!("{url}?{options}")).await.unwrap();
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    let opened = Opened {
        store,
        table,
        ..direct
    };
    opened.taken(&["k", "l"], "old").await;
    (proxy, opened)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_after_and_answered_in_full() {
    let (proxy, opened) = behind_a_wire("").await;
    opened.sql("update kv set version = 1000000 where key = 'l'");
    proxy.set(Wire::LosesAnswer, Wire::Fine);
    let taken = opened.taken(&["l", "new", "k"], "lose me").await;
    assert_eq!(taken[0], (1_000_001, true));
    assert_eq!((taken[1].1, taken[2].1), (false, true));
    assert_eq!(
        opened.sql(
            "select string_agg(version::text, ' ' order by key) from kv where value = 'lose me'"
        ),
        format!("{} {} {}", taken[2].0, taken[0].0, taken[1].0)
    );
    // The connection is gone, and its session is closed.
    assert_eq!(
        opened.sql("select closed, batch from tidegate_session"),
        "t|2"
    );

    // One that is lost on the way, on a connection that was idle, is sent again.
    opened.taken(&["k"], "fine").await;
    proxy.set(Wire::LosesCommit, Wire::Fine);
    assert!(opened.taken(&["k"], "lose me").await[0].1);
    assert_eq!(value(&opened.store, opened.table, "k").await, "lose me");
    assert_eq!(
        opened.sql("select count(*) from tidegate_session where not closed"),
        "1"
    );

    // But no more than once.
    opened.taken(&["k"], "fine").await;
    proxy.set(Wire::LosesCommit, Wire::LosesCommit);
    let error = opened.put(&["k"], "lose me").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(value(&opened.store, opened.table, "k").await, "fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_now_can_be_asked_later_and_again() {
    let (proxy, opened) = behind_a_wire("timeout=400ms").await;
    for (wire, expected, kept) in [
        (Wire::LosesAnswer, Resolution::Committed, "lose me"),
        (Wire::LosesCommit, Resolution::Aborted, "fine"),
    ] {
        opened.taken(&["k"], "fine").await;
        proxy.set(wire, Wire::Cut);
        let ticket = match opened.put(&["k"], "lose me").await {
            Err(StoreError::Unknown { ticket, .. }) => ticket.unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(
            opened.store.resolve(ticket).await.is_err(),
            "the wire is cut"
        );
        proxy.set(Wire::Fine, Wire::Fine);
        for _ in 0..2 {
            assert_eq!(opened.store.resolve(ticket).await.unwrap(), expected);
        }
        assert_eq!(value(&opened.store, opened.table, "k").await, kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_held_up_is_not_committed_after_it_was_told_aborted() {
    for hold in [
        "begin; select from kv for update".to_owned(),
        "begin; select pg_advisory_xact_lock(1953064037, 'kv'::regclass::oid::int)".to_owned(),
    ] {
        let opened = Opened::new("").await;
        opened.taken(&["k"], "old").await;
        let other = client(&opened.postgres.url(&opened.database)).await;
        other.batch_execute(&hold).await.unwrap();
        let ticket = opened.next_ticket();
        let (store, batch) = (
            Arc::clone(&opened.store),
            puts(opened.table, &["k"], "never"),
        );
        let apply = tokio::spawn(async move { store.apply(&batch).await });
        opened.wait_until("wait_event_type = 'Lock'", 1).await;
        // The caller goes away; the database does not notice, and the statement waits on.
        apply.abort();
        assert!(apply.await.unwrap_err().is_cancelled());
        opened.wait_until("wait_event_type = 'Lock'", 1).await;
        // Not even that wait is waited for.
        let resolved = opened.store.resolve(ticket).await.unwrap();
        assert_eq!(resolved, Resolution::Aborted, "{hold}");
        opened.wait_until("wait_event_type = 'Lock'", 1).await;
        other.batch_execute("commit").await.unwrap();
        opened.wait_until("true", 0).await;
        assert_eq!(value(&opened.store, opened.table, "k").await, "old");
        assert_eq!(
            opened.sql("select closed, batch from tidegate_session"),
            "t|1"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_held_up_at_its_commit_is_pending_and_then_committed() {
    let opened = Opened::new("").await;
    opened.taken(&["k"], "old").await;
    opened.sql(
        "create function hold() returns trigger language plpgsql as
             $$ begin perform pg_advisory_xact_lock(1); return null; end $$;
         create constraint trigger hold after update on kv deferrable initially deferred
             for each row execute function hold()",
    );
    let other = client(&opened.postgres.url(&opened.database)).await;
    other
        .batch_execute("begin; select pg_advisory_xact_lock(1)")
        .await
        .unwrap();
    let ticket = opened.next_ticket();
    let (store, batch) = (Arc::clone(&opened.store), puts(opened.table, &["k"], "new"));
    let apply = tokio::spawn(async move { store.apply(&batch).await });
    opened.wait_until("wait_event_type = 'Lock'", 1).await;
    apply.abort();
    assert!(apply.await.unwrap_err().is_cancelled());
    let resolved = opened.store.resolve(ticket).await.unwrap();
    assert_eq!(resolved, Resolution::Pending);
    // Nothing is sent that might come before it.
    let error = opened.put(&["k"], "newer").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    other.batch_execute("commit").await.unwrap();
    opened.taken(&["k"], "newer").await;
    let resolved = opened.store.resolve(ticket).await.unwrap();
    assert_eq!(resolved, Resolution::Committed);
    assert_eq!(value(&opened.store, opened.table, "k").await, "newer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_nothing_that_comes_later() {
    let opened = Opened::new("").await;
    opened.taken(&["k", "l"], "old").await;
    let other = client(&opened.postgres.url(&opened.database)).await;
    other
        .batch_execute("begin; select from kv where key = 'k' for update")
        .await
        .unwrap();
    for number in 1..=3 {
        let (store, batch) = (
            Arc::clone(&opened.store),
            puts(opened.table, &["k"], "never"),
        );
        let apply = tokio::spawn(async move { store.apply(&batch).await });
        opened.wait_until("wait_event_type = 'Lock'", number).await;
        apply.abort();
        assert!(apply.await.unwrap_err().is_cancelled());
    }
    // The next batch, here of another row, sees to it.
    opened.taken(&["l"], "new").await;
    other.batch_execute("commit").await.unwrap();
    opened.wait_until("true", 0).await;
    assert_eq!(value(&opened.store, opened.table, "k").await, "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_takes_too_long_is_not_there() {
    let opened = Opened::new("timeout=300ms").await;
    opened.taken(&["k"], "old").await;
    let other = client(&opened.postgres.url(&opened.database)).await;
    other
        .batch_execute("begin; select from kv for update")
        .await
        .unwrap();
    let error = opened.put(&["k"], "never").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    other.batch_execute("commit").await.unwrap();
    opened.wait_until("true", 0).await;
    assert_eq!(value(&opened.store, opened.table, "k").await, "old");
}
