//! Batches that are one statement: what they answer, what undoes them, and what becomes of them when the answer is
//! lost.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

#[path = "store_postgres/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate_core::port::{
    Batch, Guard, Outcome, Resolution, Store, StoreError, TableId, TableSpec, Ticket, Timestamp,
    Write,
};
use tidegate_core::{Change, Key, Version};
use tidegate_testkit::servers::Postgres;
use tokio::task::JoinSet;
use wire::{Proxy, Wire};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// After one in vain, so many batches do without.
const PLAIN_BATCHES: usize = 8;

async fn try_open(url: &str) -> Result<Arc<PostgresStore>, StoreError> {
    let config = PostgresConfig::from_url(url)?;
    PostgresStore::open(config).await.map(Arc::new)
}

/// A database with a store in it, whose table `kv` is open.
struct Opened {
    postgres: &'static Postgres,
    database: String,
    store: Arc<PostgresStore>,
    table: TableId,
}

impl Opened {
    async fn new(options: &str) -> Self {
        let postgres = Postgres::shared();
        let database = postgres.fresh_database();
        let url = format!("{}?{options}", postgres.url(&database));
        let store = try_open(&url).await.unwrap();
        let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
        Self {
            postgres,
            database,
            store,
            table,
        }
    }

    async fn put(&self, keys: &[&str], value: &str) -> Result<Vec<Outcome>, StoreError> {
        self.store.apply(&puts(self.table, keys, value)).await
    }

    /// Puts that are taken, as versions and whether there was a row.
    async fn taken(&self, keys: &[&str], value: &str) -> Vec<(u64, bool)> {
        applied(self.put(keys, value).await.unwrap())
    }

    fn sql(&self, statements: &str) -> String {
        self.postgres.sql(&self.database, statements)
    }

    /// How many batches were one trip, of the sessions there are.
    fn trips(&self) -> String {
        self.sql("select coalesce(sum(batch), 0) from tidegate_session")
    }

    /// The ticket of the next batch of the only session.
    fn next_ticket(&self) -> Ticket {
        let row = self.sql("select id, batch + 1 from tidegate_session");
        let (session, batch) = row.split_once('|').unwrap();
        let (session, batch): (u64, u64) = (session.parse().unwrap(), batch.parse().unwrap());
        Ticket((1 << 63) | (session << 16) | batch)
    }

    /// Returns when so many statements of the store wait for a lock, or run at all.
    async fn wait_until(&self, condition: &str, count: usize) {
        let ask = format!(
            "select count(*) from pg_stat_activity where datname = current_database()
             and application_name = 'tidegate' and state = 'active' and {condition}"
        );
        for _ in 0..500 {
            if self.sql(&ask) == count.to_string() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("there are not {count} with {condition}");
    }
}

fn puts(table: TableId, keys: &[&str], value: &str) -> Batch {
    let writes = keys.iter().map(|key| Write {
        table,
        key: Key::from(*key),
        change: Change::Put {
            value: value.to_owned().into(),
            expires_at: None,
        },
        guard: Guard::Always,
    });
    Batch {
        writes: writes.collect(),
        now: NOW,
    }
}

fn applied(outcomes: Vec<Outcome>) -> Vec<(u64, bool)> {
    let applied = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Applied { version, existed } => (version.raw(), existed),
        other => panic!("{other:?}"),
    });
    applied.collect()
}

async fn client(url: &str) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    client
}

async fn value(store: &PostgresStore, table: TableId, key: &str) -> String {
    let mut found = store.load(&[(table, key.into())], NOW).await.unwrap();
    String::from_utf8(found.remove(0).unwrap().value.to_vec()).unwrap()
}

#[tokio::test]
async fn puts_of_one_table_are_one_trip() {
    let opened = Opened::new("").await;
    // Out of order, so that answers must find their places.
    let first = opened.taken(&["c", "a"], "1").await;
    assert_eq!(first, [(first[0].0, false), (first[0].0, false)]);
    let second = opened.taken(&["b", "c", "d", "a"], "2").await;
    let version = second[0].0;
    assert!(version > first[0].0);
    let existed = [false, true, false, true];
    assert_eq!(second, existed.map(|existed| (version, existed)));
    let third = opened.taken(&["d"], "3").await;
    assert!(third[0].0 > version && third[0].1);
    assert_eq!(opened.trips(), "3");
    assert_eq!(
        opened.sql("select string_agg(key || value, ' ' order by key) from kv"),
        "a2 b2 c2 d3"
    );
    assert_eq!(
        opened.sql("select version from kv where key = 'd'"),
        third[0].0.to_string()
    );
}

#[tokio::test]
async fn versions_of_others_that_are_greater_are_counted_from() {
    let opened = Opened::new("").await;
    opened.taken(&["a", "b", "c"], "1").await;
    opened.sql("update kv set version = 1000000 where key = 'b'");
    let taken = opened.taken(&["c", "b", "a", "new"], "2").await;
    assert_eq!(taken[1], (1_000_001, true));
    assert_eq!((taken[0], taken[3]), (taken[2], (taken[2].0, false)));
    assert!(taken[0].0 < 1000);
    assert_eq!(opened.trips(), "2");
    assert_eq!(
        opened.sql("select version from kv where key = 'b'"),
        "1000001"
    );
}

#[tokio::test]
async fn an_expired_row_takes_the_plain_way_and_the_table_comes_back() {
    let opened = Opened::new("").await;
    opened.taken(&["a", "b"], "1").await;
    opened.sql("update kv set expires_at = '2001-01-01' where key = 'a'");
    let taken = opened.taken(&["a", "b"], "2").await;
    assert_eq!((taken[0].1, taken[1].1), (false, true));
    assert_eq!(opened.trips(), "1");
    for batch in 0..PLAIN_BATCHES {
        assert_eq!(opened.trips(), "1", "{batch}");
        assert!(opened.taken(&["a"], "3").await[0].1);
    }
    opened.taken(&["a"], "4").await;
    assert_eq!(opened.trips(), "3", "the second batch was undone");
    assert_eq!(value(&opened.store, opened.table, "a").await, "4");
}

#[tokio::test]
async fn a_row_made_anew_is_newer_than_its_deletion() {
    let opened = Opened::new("").await;
    opened.taken(&["other"], "1").await;
    let remember = |key: &str, version: u64| {
        opened.sql(&format!(
            "insert into tidegate_tombstone values ('public.kv', '{key}', {version}, now())"
        ));
    };
    // Deletions that are older, and newer ones of other keys and tables, are no hindrance.
    remember("a", 1);
    remember("unasked", 1_000_000);
    opened.sql("insert into tidegate_tombstone values ('public.x', 'a', 1000000, now())");
    let taken = opened.taken(&["a", "other"], "2").await;
    assert!(taken[0].0 < 1000);
    assert_eq!(opened.trips(), "2");
    remember("b", 1_000_000);
    let taken = opened.taken(&["b", "other"], "3").await;
    assert_eq!((taken[0], taken[1].1), ((1_000_001, false), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_committed_meanwhile_is_seen() {
    let opened = Opened::new("").await;
    opened.taken(&["k"], "1").await;
    let other = client(&opened.postgres.url(&opened.database)).await;
    let delete = "begin; delete from kv;
        insert into tidegate_tombstone values ('public.kv', 'k', 1000000, now())";
    other.batch_execute(delete).await.unwrap();
    let (store, batch) = (Arc::clone(&opened.store), puts(opened.table, &["k"], "2"));
    let apply = tokio::spawn(async move { store.apply(&batch).await });
    opened.wait_until("wait_event_type = 'Lock'", 1).await;
    other.batch_execute("commit").await.unwrap();
    let taken = applied(apply.await.unwrap().unwrap());
    assert_eq!(taken, [(1_000_001, false)]);
}

#[tokio::test]
async fn a_session_that_is_closed_or_gone_is_replaced() {
    let opened = Opened::new("connections=1").await;
    for end in [
        "update tidegate_session set closed = true",
        "delete from tidegate_session",
    ] {
        opened.taken(&["k"], "1").await;
        opened.sql(end);
        for batch in 0..=PLAIN_BATCHES {
            assert!(opened.taken(&["k"], "2").await[0].1, "{end} {batch}");
            assert_eq!(
                opened.sql("select count(*) from tidegate_session where not closed"),
                "0"
            );
        }
        opened.taken(&["k"], "3").await;
        assert_eq!(
            opened.sql("select count(*), sum(batch) from tidegate_session where not closed"),
            "1|1"
        );
        assert_eq!(value(&opened.store, opened.table, "k").await, "3");
    }
}

#[tokio::test]
async fn sessions_are_removed_after_a_day_without_use() {
    let opened = Opened::new("").await;
    opened.taken(&["k"], "1").await;
    let ticket = opened.next_ticket();
    opened.sql(
        "update tidegate_session set used_at = now() - interval '25 hours';
         insert into tidegate_session (id, used_at) values (-1, now() - interval '23 hours')",
    );
    let again = try_open(&opened.postgres.url(&opened.database))
        .await
        .unwrap();
    let table = again.open_table(&TableSpec::named("kv")).await.unwrap();
    again.apply(&puts(table, &["k"], "2")).await.unwrap();
    assert_eq!(
        opened.sql("select count(*), sum(batch) from tidegate_session"),
        "2|1"
    );
    // The first one does not notice, and who asks after it is told that nothing is known.
    opened.taken(&["k"], "3").await;
    assert_eq!(value(&again, table, "k").await, "3");
    let resolved = opened.store.resolve(ticket).await.unwrap();
    assert_eq!(resolved, Resolution::Forgotten);
}

#[tokio::test]
async fn refusals_are_those_of_the_database() {
    let opened = Opened::new("").await;
    opened.sql(
        "create table parent (id text primary key);
         create table d (key text primary key references parent deferrable initially deferred,
             value text not null, version bigint not null);
         create table z (key text primary key, value text not null, version bigint not null);
         create function divide() returns trigger language plpgsql as
             $$ begin perform 1 / (length(new.value) - 3); return new; end $$;
         create trigger divide after insert or update on z for each row execute function divide();
         create table c (key text primary key, value text not null, version bigint not null);
         create constraint trigger divide after insert or update on c deferrable initially deferred
             for each row execute function divide()",
    );
    for (name, bad, code) in [
        ("d", "any", "23503"),
        ("z", "bad", "22012"),
        ("c", "bad", "22012"),
    ] {
        let mut spec = TableSpec::named(name);
        (spec.columns.expires_at, spec.columns.updated_at) = (None, None);
        let table = opened.store.open_table(&spec).await.unwrap();
        for _ in 0..2 {
            let error = opened
                .store
                .apply(&puts(table, &["k"], bad))
                .await
                .unwrap_err();
            assert!(
                matches!(&error, StoreError::Refused { code: Some(found), .. } if **found == *code),
                "{name}: {error:?}"
            );
        }
        opened.sql("insert into parent values ('k') on conflict do nothing");
        opened
            .store
            .apply(&puts(table, &["k"], "good"))
            .await
            .unwrap();
        assert_eq!(value(&opened.store, table, "k").await, "good");
    }
}

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

#[tokio::test]
async fn a_server_that_was_restarted_is_used_without_an_error() {
    let mut postgres = Postgres::start();
    let database = postgres.fresh_database();
    let store = try_open(&postgres.url(&database)).await.unwrap();
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    for (crash, number) in [(false, "1"), (true, "2")] {
        store.apply(&puts(table, &["k"], "old")).await.unwrap();
        // Without a chance for the connection to be told.
        if crash {
            postgres.kill9();
        }
        postgres.restart();
        store.apply(&puts(table, &["k"], number)).await.unwrap();
        assert_eq!(value(&store, table, "k").await, number);
        let batches = "select bool_and(batch between 1 and 2) from tidegate_session";
        assert_eq!(postgres.sql(&database, batches), "t");
    }
}

#[tokio::test]
async fn an_older_database_gets_what_it_lacks() {
    for (drop, missing) in [
        ("drop table tidegate_session", "tidegate_session"),
        ("drop function tidegate_mark", "tidegate_mark"),
    ] {
        let opened = Opened::new("").await;
        opened.taken(&["k"], "1").await;
        opened.store.close().await;
        opened.sql(drop);
        let url = opened.postgres.url(&opened.database);
        match try_open(&format!("{url}?create=false")).await.map(|_| ()) {
            Err(StoreError::Configuration { message }) => {
                assert!(message.contains(missing), "{message}");
                assert!(!message.contains("tidegate_meta"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        let store = try_open(&url).await.unwrap();
        let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
        store.apply(&puts(table, &["k", "new"], "2")).await.unwrap();
        assert!(opened.trips().parse::<u64>().unwrap() >= 1);
        try_open(&format!("{url}?create=false")).await.unwrap();
    }
}

#[tokio::test]
async fn a_user_who_may_not_have_a_session_writes_all_the_same() {
    let opened = Opened::new("").await;
    let role = format!("session_of_{}", opened.database);
    opened.sql(&format!(
        "create role {role} login;
         grant select, insert, update, delete on kv, tidegate_meta, tidegate_tombstone to {role};
         grant all on all sequences in schema public to {role}"
    ));
    let url = opened.postgres.url(&opened.database);
    let url = url.replace("postgres@", &format!("{role}@"));
    let store = try_open(&url).await.unwrap();
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    for number in 0..20 {
        let value = number.to_string();
        store.apply(&puts(table, &["k"], &value)).await.unwrap();
    }
    assert_eq!(value(&store, table, "k").await, "19");
    assert_eq!(opened.trips(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_several_processes_get_versions_in_the_order_of_commits() {
    let opened = Opened::new("").await;
    opened.taken(&["a", "b", "c"], "0").await;
    let mut tasks = JoinSet::new();
    for writer in 0..4 {
        let url = opened.postgres.url(&opened.database);
        tasks.spawn(async move {
            let store = try_open(&url).await.unwrap();
            let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
            let keys = [
                ["a", "b", "c"],
                ["b", "c", "d"],
                ["c", "a", "e"],
                ["c", "b", "a"],
            ][writer];
            let mut versions = Vec::new();
            for number in 0..100 {
                let batch = puts(table, &keys, &format!("{writer} {number}"));
                let taken = applied(store.apply(&batch).await.unwrap());
                versions.extend(
                    keys.iter()
                        .zip(taken)
                        .map(|(key, (version, _))| (*key, version)),
                );
            }
            // Each writer's own rise.
            for key in keys {
                let own = versions.iter().filter(|(of, _)| *of == key);
                assert!(own.map(|(_, version)| version).is_sorted_by(|a, b| a < b));
            }
            versions
        });
    }
    let mut versions = tasks.join_all().await.concat();
    let all = versions.len();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), all, "a version was given twice");
    let last = versions.iter().filter(|(key, _)| *key == "c");
    let last = last.map(|(_, version)| *version).max().unwrap();
    let kept = opened.store.load(&[(opened.table, "c".into())], NOW).await;
    assert_eq!(
        kept.unwrap()[0].as_ref().unwrap().version,
        Version::from_raw(last)
    );
    // Being in each other's way is no reason to take more than one trip.
    assert_eq!(opened.trips(), "401");
    tokio::time::timeout(Duration::from_secs(5), opened.store.close())
        .await
        .unwrap();
}
