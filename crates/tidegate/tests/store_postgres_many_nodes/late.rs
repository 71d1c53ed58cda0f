//! Batches that come to their commit past their limit of time.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{Batch, Guard, Store, StoreError, Write};

use crate::NOW;
use crate::opened::Opened;

/// How long a batch may take that is held up for longer.
const LIMIT: Duration = Duration::from_millis(150);

/// Holds the row `k` while a batch with a limit of time comes to it, and lets go when the limit is past.
async fn check_held_up(writes: impl Fn(&Opened) -> Vec<Write>, trips: &str) {
    let opened = Opened::new().await;
    opened.apply(vec![opened.put("k", "old")]).await;
    let before = opened.sql("select key, value, version from kv order by key");
    let marked = "select coalesce(sum(batch), 0) from tidegate_session";
    assert_eq!(opened.sql(marked), "1");
    let holder = opened.client().await;
    let hold = "begin; select from kv where key = 'k' for update";
    holder.batch_execute(hold).await.unwrap();
    let limit = opened.soon(LIMIT).await;
    let batch = Batch::new(writes(&opened), NOW).commit_by(Some(limit));
    let store = Arc::clone(&opened.store);
    let apply = tokio::spawn(async move { store.apply(&batch).await });
    opened.wait_until_locked(1).await;
    opened.wait_past(limit).await;
    holder.batch_execute("commit").await.unwrap();
    let late = apply.await.unwrap();
    assert!(matches!(late, Err(StoreError::Late { .. })), "{late:?}");
    assert_eq!(
        opened.sql("select key, value, version from kv order by key"),
        before
    );
    assert_eq!(opened.sql("select count(*) from other"), "0");
    assert_eq!(opened.sql("select count(*) from tidegate_tombstone"), "0");
    assert_eq!(opened.sql(marked), "1");
    // The connection is as good as before, and nothing was left in it; also the same batch is in time with more.
    let busy = "select count(*) from pg_stat_activity where datname = current_database()
        and application_name = 'tidegate' and state <> 'idle'";
    assert_eq!(opened.sql(busy), "0");
    let limit = opened.soon(Duration::from_secs(60)).await;
    let batch = Batch::new(writes(&opened), NOW).commit_by(Some(limit));
    opened.store.apply(&batch).await.unwrap();
    assert_eq!(opened.sql(marked), trips);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_one_trip() {
    check_held_up(
        |opened| vec![opened.put("a", "new"), opened.put("k", "new")],
        // The third batch in one trip of its session: the second was undone, and no other way was tried.
        "3",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_way() {
    let writes = |opened: &Opened| {
        let elsewhere = Write {
            table: opened.other,
            ..opened.put("k", "new")
        };
        vec![opened.put("a", "new"), opened.put("k", "new"), elsewhere]
    };
    check_held_up(writes, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exact_way() {
    let writes = |opened: &Opened| vec![opened.put("a", "new"), opened.delete("k")];
    check_held_up(writes, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone() {
    // The key that is not there can only be guarded where nobody is in between.
    let writes = |opened: &Opened| {
        let guarded = Write {
            guard: Guard::IfNewer(Version::from_raw(1000)),
            ..opened.delete("absent")
        };
        vec![guarded, opened.delete("k")]
    };
    check_held_up(writes, "1").await;
}

/// The guard is nothing that a role must be let into: it works also where sessions are not kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_session() {
    let opened = Opened::new().await;
    let user = format!("{}_limited", opened.database);
    opened.sql(&format!(
        "create role {user} login; grant usage, create on schema public to {user};
         grant all on all tables in schema public to {user};
         grant all on all sequences in schema public to {user}; revoke all on tidegate_session from {user}"
    ));
    let url = opened.postgres.url(&opened.database);
    let url = url.replace("//postgres@", &format!("//{user}@"));
    let store = crate::opened::open(&url).await;
    let table = store.open_table(&crate::opened::watched("kv")).await;
    assert_eq!(table.unwrap(), opened.table);
    let now = opened.horizon().await.now;
    let batch = Batch::new(vec![opened.put("k", "new")], NOW);
    let late = store.apply(&batch.clone().commit_by(Some(now))).await;
    assert!(matches!(late, Err(StoreError::Late { .. })), "{late:?}");
    let limit = now.after(Duration::from_secs(60));
    store.apply(&batch.commit_by(Some(limit))).await.unwrap();
    assert_eq!(opened.sql("select count(*) from tidegate_session"), "0");
}
