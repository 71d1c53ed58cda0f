//! Rows that others change in plain SQL are seen to be changed.
#![cfg(all(feature = "postgres", feature = "sqlite"))]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::time::Duration;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate::sqlite::{SqliteConfig, SqliteStore};
use tidegate_core::memory::MemoryJournal;
use tidegate_core::port::{
    Batch, Columns, Guard, Outcome, Store, StoreError, TableId, TableSpec, Timestamp, Write,
};
use tidegate_core::{Change, Class, Strategy, Version};
use tidegate_testkit::servers::Postgres;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

async fn write(store: &dyn Store, table: TableId, change: Change, guard: Guard) -> Outcome {
    let write = Write {
        table,
        key: "k".into(),
        change,
        guard,
    };
    let batch = Batch::new(vec![write], NOW);
    store.apply(&batch).await.unwrap()[0]
}

fn put(value: &'static str) -> Change {
    Change::Put {
        value: value.into(),
        expires_at: None,
    }
}

async fn version(store: &dyn Store, table: TableId) -> Version {
    let rows = store.load(&[(table, "k".into())], NOW).await.unwrap();
    rows[0].as_ref().expect("the row is there").version
}

/// What a person does to a database, in SQL.
type Sql<'a> = &'a dyn Fn(&str);

/// In a table that carries the trigger, every way of others to change a row is seen by a flush; our own writes
/// bring the versions they bring.
async fn check_seen(store: &dyn Store, spec: &TableSpec, name: &str, sql: Sql<'_>) {
    let table = store.open_table(spec).await.unwrap();
    // Opened again, as at the next start.
    assert_eq!(store.open_table(spec).await.unwrap(), table);
    let generation = store.open_generation(0).await.unwrap();
    let at = |number| Version::compose(generation, (1_u64 << 40) + number);
    let over = |base, version| Guard::Flush {
        base: Some(base),
        version,
    };
    let once = |version| Guard::Once {
        since: version,
        version,
    };
    for (step, base) in [(2, Version::NONE), (4, at(2)), (6, at(4))] {
        let done = write(store, table, put("7"), over(base, at(step))).await;
        assert_eq!(done.version(), Some(at(step)));
    }
    sql(&format!("update {name} set value = '8'"));
    assert_eq!(version(store, table).await, at(7), "the next odd version");
    sql(&format!("update {name} set value = '9'"));
    assert_eq!(version(store, table).await, at(9));
    assert_eq!(at(7).raised_outside(), at(9));
    let late = write(store, table, put("10"), over(at(6), at(10))).await;
    assert_eq!(late, Outcome::Conflict { newest: at(9) });
    // An addition goes on from what others left.
    let add = Change::Add { by: 5 };
    let added = write(store, table, add.clone(), once(at(8))).await;
    assert!(
        matches!(added, Outcome::Added { value: 14, .. }),
        "{added:?}"
    );
    sql(&format!("update {name} set value = '100'"));
    let again = write(store, table, add, once(at(8))).await;
    assert_eq!(again, Outcome::Superseded);
    // A version that somebody sets stays as set.
    sql(&format!("update {name} set value = '1', version = 3"));
    assert_eq!(version(store, table).await, Version::from_raw(3));
    sql(&format!("delete from {name}"));
    let late = write(store, table, put("x"), over(Version::from_raw(3), at(12))).await;
    let newest = Version::NONE;
    assert_eq!(late, Outcome::Conflict { newest });
    // A row that others made without a number is no absent key, and what they make of it next is seen.
    for (kept, step) in [(0, 14), (-7, 20)] {
        let make = format!(
            "delete from {name}; insert into {name} (key, value, version) values ('k', '1', {kept})"
        );
        sql(&make);
        let base = version(store, table).await;
        assert!(base > Version::NONE, "{kept}");
        let absent = write(store, table, put("x"), over(Version::NONE, at(step))).await;
        assert_eq!(absent, Outcome::Conflict { newest: base });
        let done = write(store, table, put("2"), over(base, at(step))).await;
        assert_eq!(done.version(), Some(at(step)), "{kept}");
        sql(&make);
        sql(&format!("update {name} set value = '9'"));
        let newest = version(store, table).await;
        assert!(newest > base, "{kept}");
        let late = write(store, table, put("x"), over(base, at(step + 2))).await;
        assert_eq!(late, Outcome::Conflict { newest });
        let update = Guard::Unchanged(Some(newest));
        let done = write(store, table, put("3"), update).await;
        assert!(done.version() > Some(newest), "{done:?}");
    }
    sql(&format!("delete from {name}"));
}

async fn sqlite(folder: &tempfile::TempDir) -> (SqliteStore, rusqlite::Connection) {
    let path = folder.path().join("db");
    let store = SqliteStore::open(SqliteConfig::file(&path)).await.unwrap();
    (store, rusqlite::Connection::open(path).unwrap())
}

async fn postgres(database: &str) -> PostgresStore {
    let url = Postgres::shared().url(database);
    let config = PostgresConfig::from_url(&url).unwrap();
    PostgresStore::open(config).await.unwrap()
}

#[tokio::test]
async fn changes_in_sql_are_seen_in_a_table_made_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let (store, other) = sqlite(&folder).await;
    let sql = |sql: &str| other.execute_batch(sql).unwrap();
    check_seen(&store, &TableSpec::named("kv"), "kv", &sql).await;
    other
        .pragma_update(None, "recursive_triggers", true)
        .unwrap();
    check_seen(&store, &TableSpec::named("kv.2"), "\"kv.2\"", &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_in_sql_are_seen_in_a_table_made_in_postgresql() {
    let database = Postgres::shared().fresh_database();
    let store = postgres(&database).await;
    let sql = |sql: &str| {
        Postgres::shared().sql(&database, sql);
    };
    check_seen(&store, &TableSpec::named("kv"), "kv", &sql).await;
    sql("create schema app");
    check_seen(&store, &TableSpec::named("app.kv"), "app.kv", &sql).await;
}

const MADE: &str = "create table kv (key text primary key, value text, version bigint not null)";

fn there_already(trigger: bool) -> TableSpec {
    TableSpec {
        columns: Columns {
            expires_at: None,
            updated_at: None,
            ..Columns::default()
        },
        create: false,
        trigger,
        ..TableSpec::named("kv")
    }
}

#[tokio::test]
async fn a_table_that_is_there_gets_the_trigger_only_if_asked_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let (store, other) = sqlite(&folder).await;
    other.execute_batch(MADE).unwrap();
    let table = store.open_table(&there_already(false)).await.unwrap();
    let done = write(
        &store,
        table,
        put("1"),
        Guard::IfNewer(Version::from_raw(4)),
    )
    .await;
    assert!(done.version().is_some());
    other.execute_batch("update kv set value = '2'").unwrap();
    assert_eq!(version(&store, table).await, Version::from_raw(4));
    store.close().await;
    let (store, other) = sqlite(&folder).await;
    let sql = |sql: &str| other.execute_batch(sql).unwrap();
    sql("delete from kv");
    check_seen(&store, &there_already(true), "kv", &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_there_gets_the_trigger_only_if_asked_in_postgresql() {
    let database = Postgres::shared().fresh_database();
    let sql = |sql: &str| {
        Postgres::shared().sql(&database, sql);
    };
    sql(MADE);
    let store = postgres(&database).await;
    let table = store.open_table(&there_already(false)).await.unwrap();
    let done = write(
        &store,
        table,
        put("1"),
        Guard::IfNewer(Version::from_raw(4)),
    )
    .await;
    assert!(done.version().is_some());
    sql("update kv set value = '2'");
    assert_eq!(version(&store, table).await, Version::from_raw(4));
    sql("delete from kv");
    let store = postgres(&database).await;
    check_seen(&store, &there_already(true), "kv", &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_that_may_not_be_made_is_refused_by_name() {
    let database = Postgres::shared().fresh_database();
    drop(postgres(&database).await);
    let user = format!("poor_{database}");
    let quoted = format!("\"{user}\"");
    Postgres::shared().sql(
        &database,
        &format!(
            "{MADE}; create role {quoted} login; revoke create on schema public from public;
             grant select, insert, update, delete on all tables in schema public to {quoted};
             grant usage, select, update on all sequences in schema public to {quoted}"
        ),
    );
    let url = Postgres::shared().url(&database);
    let (_, host) = url.split_once('@').expect("the address names a user");
    let config = PostgresConfig::from_url(&format!("postgres://{user}@{host}")).unwrap();
    let store = PostgresStore::open(config).await.unwrap();
    match store.open_table(&there_already(true)).await {
        Err(StoreError::Configuration { message }) => {
            for part in ["public.kv", "trigger", "TRIGGER", "CREATE"] {
                assert!(message.contains(part), "{message}");
            }
        }
        other => panic!("not refused: {other:?}"),
    }
    // Without it the table is used as it is, and the connection is fit for use.
    store.open_table(&there_already(false)).await.unwrap();
    store.ping().await.unwrap();
}

/// A counter that this process and others add to, over a real database.
async fn check_counted(store: impl Store, sql: Sql<'_>, add: &str) {
    let class = Class::new("n", "n:*").strategy(Strategy::WriteBack);
    let gate = tidegate::builder()
        .store(store)
        .journal(MemoryJournal::new())
        .class(class.delta(true))
        .open()
        .await
        .unwrap();
    let deadline = Duration::from_secs(10);
    for round in 1..=5 {
        for _ in 0..10 {
            gate.add("n:1", 1).await.unwrap();
        }
        assert!(gate.flush(deadline).await.unwrap().is_complete());
        sql(add);
        // What others added shows with the next flush.
        gate.add("n:1", 0).await.unwrap();
        assert!(gate.flush(deadline).await.unwrap().is_complete());
        let value = gate.get("n:1").await.unwrap().unwrap();
        assert_eq!(value, (110 * round).to_string());
    }
    assert!(gate.drain(deadline).await.unwrap().is_complete());
}

#[tokio::test]
async fn a_counter_that_others_add_to_is_exact_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let (store, other) = sqlite(&folder).await;
    let sql = |sql: &str| other.execute_batch(sql).unwrap();
    let add = "update n set value = cast(cast(value as integer) + 100 as text)";
    check_counted(store, &sql, add).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_others_add_to_is_exact_in_postgresql() {
    let database = Postgres::shared().fresh_database();
    let store = postgres(&database).await;
    let sql = |sql: &str| {
        Postgres::shared().sql(&database, sql);
    };
    let add = "update n set value = (value::bigint + 100)::text";
    check_counted(store, &sql, add).await;
}
