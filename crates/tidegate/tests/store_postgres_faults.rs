//! What the PostgreSQL store does when the server dies, hangs, refuses or does not fit.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

#[path = "store_postgres/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate_core::port::{
    Batch, Guard, Outcome, Resolution, Store, StoreError, Swept, TableId, TableSpec, Ticket,
    Timestamp, ValueType, Write,
};
use tidegate_core::{Change, Key, Version};
use tidegate_testkit::servers::Postgres;
use tokio::task::JoinSet;
use wire::{Proxy, Wire};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

async fn try_open(url: &str) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(PostgresConfig::from_url(url)?).await
}

async fn open(url: &str) -> Arc<PostgresStore> {
    Arc::new(try_open(url).await.unwrap())
}

fn batch(table: TableId, key: &str, value: &str, guard: Guard) -> Batch {
    let change = Change::Put {
        value: value.to_owned().into(),
        expires_at: None,
    };
    let key = Key::from(key);
    Batch::new(
        vec![Write {
            table,
            key,
            change,
            guard,
        }],
        NOW,
    )
}

async fn value(store: &PostgresStore, table: TableId, key: &str) -> Option<String> {
    let found = store
        .load(&[(table, key.into())], NOW)
        .await
        .unwrap()
        .remove(0);
    found.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_server_is_used_again_when_it_is_back() {
    let mut postgres = Postgres::start_with(tidegate_testkit::servers::PostgresOptions {
        fsync: true,
        settings: vec![],
    });
    let database = postgres.fresh_database();
    let store = open(&postgres.url(&database)).await;
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        tasks.spawn(async move {
            // The last number acknowledged, and those whose outcome is unknown after it.
            let (mut acknowledged, mut unknown) = (0, Vec::new());
            for number in 1.. {
                if stop.load(Ordering::Relaxed) && unknown.is_empty() {
                    return (task, acknowledged);
                }
                let batch = batch(
                    table,
                    &format!("k{task}"),
                    &number.to_string(),
                    Guard::Always,
                );
                match store.apply(&batch).await {
                    Ok(_) => {
                        acknowledged = number;
                        unknown.clear();
                    }
                    Err(StoreError::Unavailable { .. }) => {
                        tokio::task::yield_now().await;
                    }
                    Err(StoreError::Unknown { ticket, .. }) => {
                        assert!(ticket.is_some());
                        unknown.push(number);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            unreachable!()
        });
    }
    let mut postgres = tokio::task::spawn_blocking(move || {
        std::thread::park_timeout(Duration::from_millis(300));
        postgres.kill9();
        std::thread::park_timeout(Duration::from_millis(100));
        postgres.restart();
        postgres
    })
    .await
    .unwrap();
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        let (task, acknowledged): (u32, u64) = done.unwrap();
        let kept = value(&store, table, &format!("k{task}")).await.unwrap();
        assert!(acknowledged > 0);
        assert_eq!(kept.parse::<u64>().unwrap(), acknowledged);
    }
    postgres.stop();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_terminated_connection_is_made_anew_without_an_error() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let store = open(&postgres.url(&database)).await;
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    for round in 0..3 {
        store
            .apply(&batch(table, "k", &round.to_string(), Guard::Always))
            .await
            .unwrap();
        let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()";
        assert_eq!(postgres.sql(&database, terminate), "1");
        if round == 1 {
            store
                .apply(&batch(table, "other", "x", Guard::Always))
                .await
                .unwrap();
        }
        assert_eq!(value(&store, table, "k").await, Some(round.to_string()));
    }
}

fn client(url: &str) -> impl Future<Output = tokio_postgres::Client> {
    let url = url.to_owned();
    async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }
}

#[tokio::test]
async fn a_row_that_others_hold_does_not_hold_the_call_for_ever() {
    let postgres = Postgres::shared();
    let url = postgres.url(&postgres.fresh_database());
    // What is missing is made with more patience.
    let first = open(&url).await;
    first.open_table(&TableSpec::named("kv")).await.unwrap();
    let store = open(&format!("{url}?timeout=300ms")).await;
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    store
        .apply(&batch(table, "k", "1", Guard::Always))
        .await
        .unwrap();
    let other = client(&url).await;
    other
        .batch_execute("begin; update kv set value = 'theirs'")
        .await
        .unwrap();
    for guard in [Guard::Always, Guard::Unchanged(None)] {
        let error = store
            .apply(&batch(table, "k", "2", guard))
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    assert_eq!(value(&store, table, "k").await.as_deref(), Some("1"));
    other.batch_execute("commit").await.unwrap();
    assert_eq!(value(&store, table, "k").await.as_deref(), Some("theirs"));
    store
        .apply(&batch(table, "k", "3", Guard::Always))
        .await
        .unwrap();
    assert_eq!(value(&store, table, "k").await.as_deref(), Some("3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_at_once_do_not_fail() {
    let postgres = Postgres::shared();
    let url = postgres.url(&postgres.fresh_database());
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        tasks.spawn(async move {
            let store = open(&url).await;
            let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
            let generation = store.open_generation(0).await.unwrap();
            let outcomes = store
                .apply(&batch(table, "k", "v", Guard::Always))
                .await
                .unwrap();
            let Outcome::Applied { version, .. } = outcomes[0] else {
                panic!("{outcomes:?}");
            };
            assert!(version >= Version::compose(generation, 0));
            generation
        });
    }
    let mut generations = tasks.join_all().await;
    generations.sort_unstable();
    assert_eq!(generations, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn the_isolation_a_user_is_given_does_not_matter() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    postgres.sql(
        "postgres",
        &format!(
            "alter database {database} set default_transaction_isolation = 'serializable';
             alter database {database} set default_transaction_read_only = on"
        ),
    );
    let store = open(&postgres.url(&database)).await;
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    store.open_generation(0).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let value = task.to_string();
            store
                .apply(&batch(table, "k", &value, Guard::Always))
                .await
                .unwrap();
        });
    }
    tasks.join_all().await;
    let swept = store.sweep(table, NOW, Duration::ZERO, 10).await.unwrap();
    assert_eq!(swept, Swept::default());
}

#[tokio::test]
async fn a_refusal_tells_names_and_codes_and_no_values() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    postgres.sql(
        &database,
        "create table parent (id text primary key);
         create table t (key text primary key references parent deferrable initially deferred,
             value varchar(20) not null check (value <> 'forbidden-value') unique,
             version bigint not null);
         create table j (key text primary key, value jsonb not null, version bigint not null);
         create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'secret %', new.value; end $$;
         create table g (key text primary key, value text not null, version bigint not null);
         create trigger refuse before insert on g for each row execute function refuse();
         create function archived() returns trigger language plpgsql as
             $$ begin raise exception 'secret %', new.value using errcode = '55000'; end $$;
         create table a (key text primary key, value text not null, version bigint not null);
         create trigger archived before insert on a for each row execute function archived();
         create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
         create table s (key text primary key, value text not null, version bigint not null);
         create trigger swallow before insert on s for each row execute function swallow();
         insert into parent values ('a'), ('b')",
    );
    let store = open(&postgres.url(&database)).await;
    let mut tables = Vec::new();
    for name in ["t", "j", "g", "s", "a"] {
        let mut spec = TableSpec::named(name);
        (spec.columns.expires_at, spec.columns.updated_at) = (None, None);
        tables.push(store.open_table(&spec).await.unwrap());
    }
    store
        .apply(&batch(tables[0], "b", "secret-taken", Guard::Always))
        .await
        .unwrap();
    let cases = [
        (0, "a", "forbidden-value", "23514", "t_value_check"),
        (0, "a", "secret-taken", "23505", "t_value_key"),
        (
            0,
            "a",
            "secret that is far too long",
            "",
            "at most 20 characters",
        ),
        (0, "orphan", "secret", "23503", "t_key_fkey"),
        (1, "a", "{\"secret\"", "22P02", "type"),
        (1, "a", "\"secret \\u0000\"", "22P05", "character"),
        (2, "a", "secret", "P0001", "trigger"),
        // Of a class that is transient if the server itself says so.
        (4, "a", "secret", "55000", "trigger"),
    ];
    for (table, key, value, code, named) in cases {
        for guard in [
            Guard::Always,
            Guard::Unchanged(None),
            Guard::IfNewer(Version::from_raw(1 << 50)),
        ] {
            match store.apply(&batch(tables[table], key, value, guard)).await {
                Err(StoreError::Refused {
                    code: found,
                    message,
                    ..
                }) => {
                    assert_eq!(found.as_deref().unwrap_or_default(), code, "{message}");
                    assert!(message.contains(named), "{message}");
                    assert!(
                        !message.contains("secret") && !message.contains("forbidden"),
                        "{message}"
                    );
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }
    // A trigger that leaves rows out in silence is no success, and ends.
    let error = store
        .apply(&batch(tables[3], "a", "v", Guard::Always))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    // Nothing is left of all that, and the connection is fine.
    assert_eq!(value(&store, tables[0], "a").await, None);
    assert_eq!(postgres.sql(&database, "select count(*) from t"), "1");
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_refused_by_the_name_of_the_column() {
    let cases = [
        (
            "key text primary key, version bigint not null",
            "column value",
        ),
        (
            "key int primary key, value text, version bigint not null",
            "column key",
        ),
        (
            "key char(9) primary key, value text, version bigint not null",
            "column key",
        ),
        (
            "key text, value text, version bigint not null",
            "column key",
        ),
        (
            "key text unique deferrable, value text, version bigint not null",
            "column key",
        ),
        (
            "key text, value text, n int default 0, version bigint not null, primary key (key, n)",
            "column key",
        ),
        (
            "key text collate odd primary key, value text, version bigint not null",
            "column key",
        ),
        (
            "key text primary key, value int, version bigint not null",
            "column value",
        ),
        (
            "key text primary key, value public.mine, version bigint not null",
            "column value",
        ),
        (
            "key text primary key, value text generated always as ('x') stored, version bigint not null",
            "column value",
        ),
        (
            "key text primary key, value text, version int not null",
            "column version",
        ),
        (
            "key text primary key, value text, version bigint",
            "column version",
        ),
        (
            "key text primary key, value text, version bigint generated always as identity",
            "column version",
        ),
        (
            "key text primary key, value text, version bigint not null, n int not null",
            "column n ",
        ),
        (
            "key text primary key, value text, version bigint not null, expires_at timestamp",
            "column expires_at",
        ),
        (
            "key text primary key, value text, version bigint not null, expires_at timestamptz not null",
            "column expires_at",
        ),
    ];
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let store = open(&postgres.url(&database)).await;
    let mut sql = String::from(
        "create collation odd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create domain mine as text;
         create table part (key text, value text, version bigint not null);
         create unique index on part (key) where key > 'a';
         create unique index on part (lower(key));
         create view v as select * from part;
         create table whole (key text primary key, value text, version bigint) partition by hash (key);",
    );
    for (i, (columns, _)) in cases.iter().enumerate() {
        sql += &format!("create table t{i} ({columns});");
    }
    postgres.sql(&database, &sql);
    let open = async |name: &str, expires: bool| {
        let mut spec = TableSpec::named(name);
        spec.columns.updated_at = None;
        if !expires {
            spec.columns.expires_at = None;
        }
        match store.open_table(&spec).await {
            Err(StoreError::Configuration { message }) => message.to_string(),
            other => panic!("{name}: {other:?}"),
        }
    };
    for (i, (columns, named)) in cases.into_iter().enumerate() {
        let message = open(&format!("t{i}"), columns.contains("expires_at")).await;
        assert!(message.contains(named), "{columns}: {message}");
        assert!(message.contains(&format!("table public.t{i}")), "{message}");
    }
    assert!(open("part", false).await.contains("column key"));
    assert!(open("v", false).await.contains("view"));
    assert!(open("whole", false).await.contains("partitioned"));
    assert!(open("tidegate_meta", false).await.contains("tidegate_"));
    assert!(open(&"x".repeat(64), false).await.contains("63"));
    let mut spec = TableSpec::named("t0");
    spec.columns.value = "key".into();
    let error = store.open_table(&spec).await.unwrap_err();
    assert!(error.to_string().contains("two things"), "{error}");
}

#[tokio::test]
async fn a_user_without_privileges_is_told_which() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let admin = open(&postgres.url(&database)).await;
    admin.open_table(&TableSpec::named("kv")).await.unwrap();
    let role = format!("role_{database}");
    postgres.sql(
        &database,
        &format!(
            "create role {role} login; grant select on all tables in schema public to {role};
             grant select on all sequences in schema public to {role}"
        ),
    );
    let url = postgres
        .url(&database)
        .replace("postgres@", &format!("{role}@"));
    let store = open(&url).await;
    let message = store
        .open_table(&TableSpec::named("kv"))
        .await
        .unwrap_err()
        .to_string();
    assert!(message.contains("INSERT, UPDATE, DELETE"), "{message}");
    let wrong = try_open(&url.replace(&role, "nobody_of_that_name")).await;
    assert!(matches!(wrong, Err(StoreError::Configuration { .. })));
    let wrong = try_open(&postgres.url("no_such_database")).await;
    assert!(matches!(wrong, Err(StoreError::Configuration { .. })));
    let wrong = try_open("postgres://postgres@127.0.0.1:1/x").await;
    assert!(matches!(wrong, Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn a_sequence_that_would_number_out_of_order_is_refused() {
    let postgres = Postgres::shared();
    for (change, named) in [
        ("cache 20", "cache 1"),
        ("cycle", "cycle"),
        ("increment 2", "by one"),
    ] {
        let database = postgres.fresh_database();
        open(&postgres.url(&database)).await.close().await;
        postgres.sql(
            &database,
            &format!("alter sequence tidegate_version {change}"),
        );
        match try_open(&postgres.url(&database)).await {
            Err(StoreError::Configuration { message }) => {
                assert!(
                    message.contains("tidegate_version") && message.contains(named),
                    "{message}"
                );
            }
            other => panic!("{change}: {:?}", other.map(|_| ())),
        }
    }
    let database = postgres.fresh_database();
    let url = format!("{}?create=false", postgres.url(&database));
    let error = try_open(&url).await.err().unwrap();
    assert!(error.to_string().contains("tidegate_version"), "{error}");
    open(&postgres.url(&database)).await;
    open(&url).await;
}

/// A store behind a wire that listens for commits, with tables that hold `k` = `old`.
async fn behind_a_wire(options: &str) -> (Proxy, Arc<PostgresStore>, [TableId; 2]) {
    let postgres = Postgres::shared();
    let proxy = Proxy::start(postgres.port(), b"commit\0");
    let url = postgres.url(&postgres.fresh_database());
    let url = url.replace(&postgres.port().to_string(), &proxy.port.to_string());
    let store = open(&format!("{url}?{options}")).await;
    let mut tables = [TableId(0); 2];
    for (table, name) in tables.iter_mut().zip(["kv", "other"]) {
        *table = store.open_table(&TableSpec::named(name)).await.unwrap();
    }
    store.apply(&of_both(tables, "old")).await.unwrap();
    (proxy, store, tables)
}

/// A batch of two tables, whose commit is sent for itself.
fn of_both(tables: [TableId; 2], value: &str) -> Batch {
    let mut both = batch(tables[0], "k", value, Guard::Always);
    let other = batch(tables[1], "k", value, Guard::Always);
    both.writes.extend(other.writes);
    both
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_commit_is_asked_after() {
    let (proxy, store, tables) = behind_a_wire("").await;
    proxy.set(Wire::LosesAnswer, Wire::Fine);
    let outcomes = store.apply(&of_both(tables, "new")).await.unwrap();
    assert!(matches!(
        outcomes[0],
        Outcome::Applied { existed: true, .. }
    ));
    assert_eq!(value(&store, tables[0], "k").await.as_deref(), Some("new"));

    proxy.set(Wire::LosesCommit, Wire::Fine);
    let error = store.apply(&of_both(tables, "never")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(value(&store, tables[0], "k").await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_now_can_be_asked_later() {
    let (proxy, store, tables) = behind_a_wire("timeout=400ms").await;
    for (wire, expected, kept) in [
        (Wire::LosesAnswer, Resolution::Committed, "new"),
        (Wire::LosesCommit, Resolution::Aborted, "new"),
    ] {
        proxy.set(wire, Wire::Cut);
        let value_of = if expected == Resolution::Committed {
            "new"
        } else {
            "never"
        };
        let ticket = match store.apply(&of_both(tables, value_of)).await {
            Err(StoreError::Unknown { ticket, .. }) => ticket.unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(store.resolve(ticket).await.is_err(), "the wire is cut");
        proxy.set(Wire::Fine, Wire::Fine);
        assert_eq!(store.resolve(ticket).await.unwrap(), expected);
        assert_eq!(value(&store, tables[0], "k").await.as_deref(), Some(kept));
    }
    // Tickets of nobody.
    assert_eq!(
        store.resolve(Ticket((1 << 40) + 12_345)).await.unwrap(),
        Resolution::Aborted
    );
    assert_eq!(
        store.resolve(Ticket(u64::MAX)).await.unwrap(),
        Resolution::Forgotten
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_does_not_hang_the_caller() {
    let (proxy, store, tables) = behind_a_wire("timeout=300ms&connections=2").await;
    proxy.set(Wire::Silent, Wire::Silent);
    for _ in 0..3 {
        let error = store.apply(&of_both(tables, "never")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let error = store
            .load(&[(tables[0], "k".into())], NOW)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    proxy.set(Wire::Fine, Wire::Fine);
    assert_eq!(value(&store, tables[0], "k").await.as_deref(), Some("old"));
    store.apply(&of_both(tables, "new")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_leaves_no_transaction_behind() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    let url = postgres.url(&database);
    let store = open(&format!("{url}?connections=2")).await;
    let spec = TableSpec {
        value_type: ValueType::Text,
        ..TableSpec::named("kv")
    };
    let table = store.open_table(&spec).await.unwrap();
    store
        .apply(&batch(table, "k", "old", Guard::Always))
        .await
        .unwrap();
    let other = client(&url).await;
    other
        .batch_execute("begin; select from kv for update")
        .await
        .unwrap();
    for _ in 0..5 {
        let batch = batch(table, "k", "never", Guard::Always);
        let apply = store.apply(&batch);
        assert!(
            tokio::time::timeout(Duration::from_millis(50), apply)
                .await
                .is_err()
        );
    }
    other.batch_execute("commit").await.unwrap();
    store
        .apply(&batch(table, "k", "new", Guard::Always))
        .await
        .unwrap();
    assert_eq!(value(&store, table, "k").await.as_deref(), Some("new"));
}
