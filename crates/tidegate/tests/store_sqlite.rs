//! The SQLite store does what every store must, and what its front page says besides.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::sync::Arc;

use tidegate::sqlite::{SqliteConfig, SqliteStore};
use tidegate_core::port::{
    Batch, Columns, Guard, Outcome, Store, StoreError, TableSpec, Timestamp, ValueType, Write,
};
use tidegate_core::{Change, Key};
use tidegate_testkit::conformance::store::{Keys, Subject, Values, run};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

async fn open(config: &SqliteConfig) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(config.clone()).await.unwrap())
}

fn typed(value_type: ValueType) -> (TableSpec, TableSpec) {
    let spec = |name| TableSpec {
        value_type,
        ..TableSpec::named(name)
    };
    (spec("kv"), spec("kv.other"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    run(|case| {
        let config = SqliteConfig::file(folder.path().join(case));
        async move { Subject::new(open(&config).await).again(open(&config).await) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    run(|_case| async { Subject::new(open(&SqliteConfig::memory()).await) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_tables_of_each_type() {
    for (value_type, values) in [
        (ValueType::Text, Values::Text),
        (ValueType::Bytes, Values::Any),
        (ValueType::Json, Values::Json),
        (ValueType::Jsonb, Values::Json),
    ] {
        run(|_case| async {
            let (table, other) = typed(value_type);
            let store = open(&SqliteConfig::memory()).await;
            Subject::new(store)
                .tables(table, other)
                .takes(Keys::Any, values)
        })
        .await;
    }
}

fn odd_spec(name: &str) -> TableSpec {
    TableSpec {
        name: name.into(),
        columns: Columns {
            key: "The \"Key\"".into(),
            value: "order".into(),
            version: "Ver".into(),
            expires_at: Some("until".into()),
            updated_at: None,
        },
        value_type: ValueType::Auto,
        create: false,
        trigger: true,
        outbox: false,
    }
}

const ODD: [&str; 2] = ["Weird \"Table\"; drop table x", "sel.ect"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_tables_that_are_there_already() {
    let folder = tempfile::tempdir().unwrap();
    run(|case| {
        let path = folder.path().join(case);
        let user = rusqlite::Connection::open(&path).unwrap();
        for name in ODD {
            let name = name.replace('"', "\"\"");
            user.execute_batch(&format!(
                "create table \"{name}\" (id integer primary key, \"The \"\"Key\"\"\" text unique,
                 \"order\", ver bigint not null default 0, until integer, note text default 'x')"
            ))
            .unwrap();
        }
        let config = SqliteConfig::file(path);
        async move {
            Subject::new(open(&config).await)
                .again(open(&config).await)
                .tables(odd_spec(ODD[0]), odd_spec(ODD[1]))
        }
    })
    .await;
}

fn put(table: tidegate_core::port::TableId, key: &str, guard: Guard) -> Batch {
    let change = Change::Put {
        value: "v".into(),
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

#[tokio::test]
async fn rows_can_be_read_by_people_and_survive() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig::file(folder.path().join("db"));
    let store = open(&config).await;
    assert!(store.capabilities().durable);
    let table = store
        .open_table(&TableSpec::named("session"))
        .await
        .unwrap();
    let first = store.open_generation(0).await.unwrap();
    store
        .apply(&put(table, "user:1", Guard::Always))
        .await
        .unwrap();
    store.close().await;

    let user = rusqlite::Connection::open(folder.path().join("db")).unwrap();
    let row = user.query_row(
        "select typeof(key), key, typeof(value), value, updated_at from session",
        [],
        |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        },
    );
    let row: (String, String, String, String, i64) = row.unwrap();
    let expected = ("text", "user:1", "text", "v", NOW.as_millis().cast_signed());
    assert_eq!((&*row.0, &*row.1, &*row.2, &*row.3, row.4), expected);

    let store = open(&config).await;
    let table = store
        .open_table(&TableSpec::named("session"))
        .await
        .unwrap();
    assert!(store.open_generation(0).await.unwrap() > first);
    let found = store.load(&[(table, "user:1".into())], NOW).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().value, "v");
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_refused_by_the_name_of_the_column() {
    let cases = [
        (
            "key text primary key, version integer not null",
            "column value",
        ),
        (
            "key integer primary key, value text, version integer not null",
            "column key",
        ),
        (
            "key text, value text, version integer not null",
            "column key",
        ),
        (
            "key text collate nocase primary key, value, version integer not null",
            "column key",
        ),
        (
            "key text, value, n int, version integer not null, primary key (key, n)",
            "column key",
        ),
        (
            "key text primary key, value int, version integer not null",
            "column value",
        ),
        (
            "key text primary key, value as (key), version integer not null",
            "column value",
        ),
        (
            "key text primary key, value text, version text not null",
            "column version",
        ),
        (
            "key text primary key, value text, version integer",
            "column version",
        ),
        (
            "key text primary key, value, version integer not null, n int not null",
            "column n ",
        ),
        (
            "key text primary key, value, version integer not null, expires_at text",
            "column expires_at",
        ),
        (
            "key text primary key, value, version integer not null, expires_at int not null",
            "column expires_at",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let user = rusqlite::Connection::open(&path).unwrap();
    let store = open(&SqliteConfig::file(&path)).await;
    for (i, (columns, named)) in cases.into_iter().enumerate() {
        user.execute_batch(&format!("create table t{i} ({columns})"))
            .unwrap();
        let mut spec = TableSpec::named(format!("t{i}"));
        spec.columns.updated_at = None;
        if !columns.contains("expires_at") {
            spec.columns.expires_at = None;
        }
        match store.open_table(&spec).await {
            Err(StoreError::Configuration { message }) => {
                assert!(message.contains(named), "{columns}: {message}");
                assert!(message.contains(&format!("table t{i}")), "{message}");
            }
            other => panic!("{columns}: {other:?}"),
        }
    }
    user.execute_batch(
        "create table ok (key, value, version int not null); \
        create unique index part on ok (key) where key > 'a'; \
        create view v as select * from ok",
    )
    .unwrap();
    for name in ["v", "ok", "tidegate_meta"] {
        let refused = store.open_table(&TableSpec::named(name)).await;
        assert!(
            matches!(refused, Err(StoreError::Configuration { .. })),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_constraint_names_the_write_at_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let user = rusqlite::Connection::open(&path).unwrap();
    user.execute_batch(
        "create table parent (id text primary key);
         create table t (key text primary key, value text check (length(value) < 5),
            version integer not null, foreign key (key) references parent (id)
            deferrable initially deferred);
         insert into parent values ('a'), ('b')",
    )
    .unwrap();
    let store = open(&SqliteConfig::file(&path)).await;
    let mut spec = TableSpec::named("t");
    (spec.columns.expires_at, spec.columns.updated_at) = (None, None);
    let table = store.open_table(&spec).await.unwrap();
    let mut batch = put(table, "a", Guard::Always);
    let mut long = batch.writes[0].clone();
    long.key = "b".into();
    long.change = Change::Put {
        value: "secret value".into(),
        expires_at: None,
    };
    batch.writes.push(long);
    match store.apply(&batch).await.unwrap_err() {
        StoreError::Refused {
            item,
            code,
            message,
        } => {
            assert_eq!((item, code.as_deref()), (Some(1), Some("275")));
            assert!(!message.contains("secret"), "{message}");
        }
        other => panic!("{other}"),
    }
    // A row that lives for ever only cannot take an end.
    let mut mortal = put(table, "a", Guard::Always);
    mortal.writes[0].change = Change::Put {
        value: "v".into(),
        expires_at: Some(NOW),
    };
    let refused = store.apply(&mortal).await;
    assert!(matches!(
        refused,
        Err(StoreError::Refused { item: Some(0), .. })
    ));
    // Checked at the commit: only the batch that broke it is refused.
    let orphan = put(table, "orphan", Guard::Always);
    let fine = [
        put(table, "a", Guard::Always),
        put(table, "b", Guard::Always),
    ];
    let (first, bad, second) = tokio::join!(
        store.apply(&fine[0]),
        store.apply(&orphan),
        store.apply(&fine[1])
    );
    assert!(matches!(first.unwrap()[0], Outcome::Applied { .. }));
    assert!(matches!(bad, Err(StoreError::Refused { .. })), "{bad:?}");
    assert!(matches!(second.unwrap()[0], Outcome::Applied { .. }));
}

#[tokio::test]
async fn another_process_that_writes_is_waited_for_and_then_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut config = SqliteConfig::file(&path);
    config.busy_timeout = std::time::Duration::from_millis(20);
    let store = open(&config).await;
    let table = store.open_table(&TableSpec::named("t")).await.unwrap();
    let user = rusqlite::Connection::open(&path).unwrap();
    user.execute_batch("begin immediate").unwrap();
    let error = store
        .apply(&put(table, "a", Guard::Always))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    store.ping().await.unwrap();
    assert_eq!(
        store.load(&[(table, "a".into())], NOW).await.unwrap(),
        [None]
    );
    user.execute_batch("commit").unwrap();
    store.apply(&put(table, "a", Guard::Always)).await.unwrap();
}

#[tokio::test]
async fn a_row_that_others_filled_with_other_types_is_read_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = SqliteStore::open(SqliteConfig::file(&path)).await.unwrap();
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    let now = Timestamp::from_millis(1_700_000_000_000);
    other
        .execute_batch(
            "insert into kv (key, value, version, expires_at) values
             ('a', '1', 'first', null), ('b', '1', 1.5, '2099-01-01'), ('c', '1', 3, 1.8e12),
             ('d', '1', x'00', x'01'), ('good', '1', 7, null)",
        )
        .unwrap();
    let keys = ["a", "b", "c", "d", "good"];
    let asked: Vec<_> = keys.iter().map(|key| (table, Key::from(*key))).collect();
    let rows = store.load(&asked, now).await.unwrap();
    assert!(rows.iter().all(Option::is_some), "{rows:?}");
    assert_eq!(store.scan(table, None, 10, now).await.unwrap().len(), 5);
    for (key, row) in keys.iter().zip(rows) {
        let write = Write {
            table,
            key: Key::from(*key),
            change: Change::Add { by: 1 },
            guard: Guard::Unchanged(row.map(|row| row.version)),
        };
        let batch = Batch::new(vec![write], now);
        let outcome = store.apply(&batch).await.unwrap()[0];
        assert!(
            matches!(outcome, Outcome::Added { value: 2, .. }),
            "{key}: {outcome:?}"
        );
    }
}
