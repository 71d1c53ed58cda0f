//! Tables of users in PostgreSQL that do something to what is put in: nothing is kept otherwise than it was
//! acknowledged.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::time::Duration;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate_core::port::{
    Batch, Columns, Guard, Outcome, Store, StoreError, TableId, TableSpec, Timestamp, Write,
};
use tidegate_core::{Change, Version};
use tidegate_testkit::servers::Postgres;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

async fn open(database: &str) -> PostgresStore {
    open_as("postgres", database).await
}

async fn open_as(user: &str, database: &str) -> PostgresStore {
    let url = Postgres::shared().url(database);
    let (_, host) = url.split_once('@').expect("the address names a user");
    let config = PostgresConfig::from_url(&format!("postgres://{user}@{host}")).unwrap();
    PostgresStore::open(config).await.unwrap()
}

/// A table of three columns that is there already.
fn mapped(expires_at: Option<&str>) -> TableSpec {
    TableSpec {
        columns: Columns {
            expires_at: expires_at.map(str::to_owned),
            updated_at: None,
            ..Columns::default()
        },
        create: false,
        ..TableSpec::named("kv")
    }
}

fn puts(table: TableId, rows: &[(&str, &str)], guard: Guard) -> Batch {
    let write = |(key, value): &(&str, &str)| Write {
        table,
        key: (*key).into(),
        change: Change::Put {
            value: (*value).to_owned().into(),
            expires_at: None,
        },
        guard,
    };
    Batch::new(rows.iter().map(write).collect(), NOW)
}

async fn value(store: &PostgresStore, table: TableId, key: &str) -> Option<String> {
    let rows = store.load(&[(table, key.into())], NOW).await.unwrap();
    let entry = rows.into_iter().next().unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

/// What a flush uses that was made over nothing in particular.
fn flush() -> Guard {
    Guard::Flush {
        base: None,
        version: Version::compose(1000, 2),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_longer_than_its_column_is_refused_also_if_it_ends_in_spaces() {
    let database = Postgres::shared().fresh_database();
    let made =
        "create table kv (key varchar(3) primary key, value varchar(4), version bigint not null)";
    Postgres::shared().sql(&database, made);
    let store = open(&database).await;
    let table = store.open_table(&mapped(None)).await.unwrap();
    for guard in [Guard::Always, flush()] {
        for rows in [
            [("abc  ", "1")],
            [("a", "1234   ")],
            [("a", "12345")],
            [("äöüß", "1")],
        ] {
            let error = store.apply(&puts(table, &rows, guard)).await;
            assert!(
                matches!(error, Err(StoreError::Refused { .. })),
                "{rows:?} {error:?}"
            );
            let write = &puts(table, &rows, guard).writes[0];
            assert!(store.check(write).is_err(), "{rows:?}");
        }
    }
    assert_eq!(store.count(table, NOW).await.unwrap(), 0);
    for guard in [Guard::Always, flush()] {
        store
            .apply(&puts(table, &[("äöü", "1ß4 ")], guard))
            .await
            .unwrap();
    }
    assert_eq!(value(&store, table, "äöü").await.as_deref(), Some("1ß4 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_that_gives_a_row_another_key_is_refused() {
    let database = Postgres::shared().fresh_database();
    let sql = |sql: &str| Postgres::shared().sql(&database, sql);
    sql(
        "create table kv (key text primary key, value text, version bigint not null);
         create function small() returns trigger language plpgsql as $$
         begin new.key := lower(new.key); return new; end $$;
         create trigger small before insert or update on kv for each row execute function small()",
    );
    let store = open(&database).await;
    let table = store.open_table(&mapped(None)).await.unwrap();
    for guard in [Guard::Always, Guard::Unchanged(None), flush()] {
        let done = store.apply(&puts(table, &[("ABC", "1")], guard)).await;
        assert!(
            matches!(done, Err(StoreError::Refused { .. })),
            "{guard:?} {done:?}"
        );
        assert_eq!(store.count(table, NOW).await.unwrap(), 0);
    }
    store
        .apply(&puts(table, &[("abc", "1")], Guard::Always))
        .await
        .unwrap();
    assert_eq!(value(&store, table, "abc").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_life_that_would_be_rounded_is_refused_by_its_column() {
    let database = Postgres::shared().fresh_database();
    let made = "create table kv (key text primary key, value text, version bigint not null,
        at timestamptz(0), exact timestamptz(3))";
    Postgres::shared().sql(&database, made);
    let store = open(&database).await;
    match store.open_table(&mapped(Some("at"))).await {
        Err(StoreError::Configuration { message }) => {
            assert!(
                message.contains("column at of table public.kv"),
                "{message}"
            );
        }
        other => panic!("not refused: {other:?}"),
    }
    store.open_table(&mapped(Some("exact"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_ask_for_the_trigger_at_once_all_get_it() {
    let database = Postgres::shared().fresh_database();
    let made = "create table kv (key text primary key, value text, version bigint not null)";
    Postgres::shared().sql(&database, made);
    let stores = [open(&database).await, open(&database).await];
    // Both find it missing, and then one makes it after the other.
    let (client, connection) =
        tokio_postgres::connect(&Postgres::shared().url(&database), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    let held = "begin; select pg_advisory_xact_lock(x'74696465'::int, 0)";
    client.batch_execute(held).await.unwrap();
    let mut opening = Vec::new();
    for store in stores {
        opening.push(tokio::spawn(async move {
            let spec = TableSpec {
                trigger: true,
                ..mapped(None)
            };
            store.open_table(&spec).await.map(drop)
        }));
    }
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    while client
        .query_one(waiting, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        < 2
    {
        tokio::task::yield_now().await;
    }
    client.batch_execute("commit").await.unwrap();
    for opened in opening {
        opened.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_may_each_make_tables_in_one_schema() {
    let database = Postgres::shared().fresh_database();
    let store = open(&database).await;
    store.open_table(&TableSpec::named("first")).await.unwrap();
    let user = format!("other_{database}");
    Postgres::shared().sql(
        &database,
        &format!(
            "create role \"{user}\" login; grant create, usage on schema public to \"{user}\";
             grant select, insert, update, delete on all tables in schema public to \"{user}\";
             grant usage, select, update on all sequences in schema public to \"{user}\""
        ),
    );
    let other = open_as(&user, &database).await;
    let table = other.open_table(&TableSpec::named("second")).await.unwrap();
    let outcomes = other
        .apply(&puts(table, &[("k", "1")], Guard::Always))
        .await
        .unwrap();
    assert!(matches!(outcomes[0], Outcome::Applied { .. }));
    tokio::time::timeout(Duration::from_secs(5), other.close())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_message_holds_is_refused_for_the_caller_to_halve() {
    let database = Postgres::shared().fresh_database();
    let store = open(&database).await;
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    let value = bytes::Bytes::from(vec![b'x'; 32 << 20]);
    let batch = |count: usize| {
        let write = |i| Write {
            table,
            key: format!("k{i}").as_str().into(),
            change: Change::Put {
                value: value.clone(),
                expires_at: None,
            },
            guard: flush(),
        };
        Batch::new((0..count).map(write).collect(), NOW)
    };
    // The server would close the connection over it, as if it were away, each time.
    match store.apply(&batch(33)).await {
        Err(StoreError::Refused { item: None, .. }) => {}
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(store.apply(&batch(2)).await.unwrap().len(), 2);
}
