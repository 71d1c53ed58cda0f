//! The PostgreSQL store does what every store must, with tables of each kind.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::sync::Arc;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate_core::port::{Columns, TableSpec, ValueType};
use tidegate_testkit::conformance::store::{Keys, Subject, Values, run};
use tidegate_testkit::servers::Postgres;

async fn open(database: &str) -> Arc<PostgresStore> {
    let url = Postgres::shared().url(database);
    let config = PostgresConfig::from_url(&url).unwrap();
    Arc::new(PostgresStore::open(config).await.unwrap())
}

/// Runs the suite with tables that `spec` describes; `sql` makes them for a case, if they are to be there.
async fn check(
    keys: Keys,
    values: Values,
    spec: impl Fn(&str) -> (TableSpec, TableSpec),
    sql: impl Fn(&str) -> String,
) {
    let database = Postgres::shared().fresh_database();
    run(|case| {
        let (table, other) = spec(case);
        let made = sql(case);
        if !made.is_empty() {
            Postgres::shared().sql(&database, &made);
        }
        let database = database.clone();
        async move {
            // Generations end in one case, which must not end them for the others.
            let database = match case {
                "generations_end" => Postgres::shared().fresh_database(),
                _ => database,
            };
            if !made.is_empty() && case == "generations_end" {
                Postgres::shared().sql(&database, &made);
            }
            Subject::new(open(&database).await)
                .again(open(&database).await)
                .tables(table, other)
                .takes(keys, values)
        }
    })
    .await;
}

async fn check_made_here(value_type: ValueType, values: Values) {
    let spec = |name| TableSpec {
        value_type,
        ..TableSpec::named(name)
    };
    check(
        Keys::Text,
        values,
        |case| (spec(case.to_string()), spec(format!("public.{case} 2"))),
        |_| String::new(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_text_and_bytes_side_by_side() {
    check_made_here(ValueType::Auto, Values::Any).await;
}

/// The triggers of the outbox change nothing of what we write.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_an_outbox() {
    let spec = |name| TableSpec {
        outbox: true,
        ..TableSpec::named(name)
    };
    check(
        Keys::Text,
        Values::Any,
        |case| (spec(case.to_string()), spec(format!("public.{case} 2"))),
        |_| String::new(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_text() {
    check_made_here(ValueType::Text, Values::Text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_bytes() {
    check_made_here(ValueType::Bytes, Values::Any).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_json() {
    check_made_here(ValueType::Json, Values::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_jsonb() {
    check_made_here(ValueType::Jsonb, Values::Json).await;
}

/// Tables of a user: odd names, columns of other types, of other orders, and of no concern.
async fn check_of_a_user(key: &str, value: &str, keys: Keys, values: Values) {
    let names = |case: &str| {
        (
            format!("My Apps.Weird \"{case}\"; --"),
            format!("{case} é's"),
        )
    };
    let spec = |name| TableSpec {
        name,
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
    };
    let create = |name: String| {
        format!(
            "create table {name} (id serial primary key, note text default 'x',
                 \"Ver\" bigint not null default 0, \"order\" {value}, \"until\" timestamptz,
                 \"The \"\"Key\"\"\" {key} unique not null,
                 twice bigint generated always as (\"Ver\" * 0) stored);"
        )
    };
    check(
        keys,
        values,
        |case| (spec(names(case).0), spec(names(case).1)),
        |case| {
            let (first, second) = (names(case).0, names(case).1);
            let (schema, table) = first.split_once('.').unwrap();
            let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            format!(
                "create schema if not exists {}; {} {}",
                quote(schema),
                create(format!("{}.{}", quote(schema), quote(table))),
                create(quote(&second)),
            )
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_a_users_table_of_varchar() {
    // A collation in which "a" sorts before "B".
    let key = "varchar(5000) collate \"und-x-icu\"";
    check_of_a_user(key, "varchar", Keys::Text, Values::Text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_a_users_table_of_bytea() {
    check_of_a_user("bytea", "bytea not null", Keys::Any, Values::Any).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_a_users_table_of_jsonb() {
    check_of_a_user("text", "jsonb", Keys::Text, Values::Json).await;
}
