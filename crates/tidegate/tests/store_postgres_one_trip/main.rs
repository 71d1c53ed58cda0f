//! Batches that are one statement: what they answer, what undoes them, and what becomes of them when the answer is
//! lost.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod lost_answers;
mod opened;
#[path = "../store_postgres/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{Resolution, Store, StoreError, TableSpec, Timestamp};
use tidegate_testkit::servers::Postgres;
use tokio::task::JoinSet;

use crate::opened::{Opened, applied, client, puts, try_open, value};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// After one in vain, so many batches do without.
const PLAIN_BATCHES: usize = 8;

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
