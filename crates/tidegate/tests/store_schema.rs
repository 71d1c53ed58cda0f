//! What is printed for somebody else to run is all that a store needs: it does what every store must under a role that
//! may make nothing.
#![cfg(all(feature = "postgres", feature = "sqlite"))]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::sync::Arc;

use tidegate::postgres::{self, PostgresConfig, PostgresStore};
use tidegate::sqlite::{self, SqliteConfig, SqliteStore};
use tidegate_core::port::{Columns, StoreError, TableSpec, ValueType};
use tidegate_testkit::conformance::store::{Keys, Subject, Values, run};
use tidegate_testkit::servers::Postgres;

const OWN_SCHEMA: &str = "tide's";

/// A role of this database that may log in, and looks for names where the store's own are.
fn role(database: &str) -> String {
    let role = format!("{database}_user");
    Postgres::shared().sql(
        database,
        &format!(
            "create schema \"{OWN_SCHEMA}\"; create schema \"App\"; create role {role} login;
             alter role {role} set search_path = \"{OWN_SCHEMA}\""
        ),
    );
    role
}

/// Runs the printed text as the superuser, more than once as people do, and grants what it says.
fn set_up(database: &str, role: &str, tables: &[TableSpec]) {
    let text = postgres::schema(OWN_SCHEMA, tables).unwrap();
    for _ in 0..2 {
        Postgres::shared().sql(database, &text);
    }
    let grants = text
        .lines()
        .filter_map(|line| line.strip_prefix("-- grant "));
    let grants: Vec<String> = grants
        .map(|grant| {
            format!(
                "grant {}",
                grant.replace(" to tidegate;", &format!(" to {role};"))
            )
        })
        .collect();
    assert!(grants.len() > 8, "{grants:?}");
    Postgres::shared().sql(database, &grants.join("\n"));
}

fn url(database: &str, role: &str) -> String {
    let url = Postgres::shared().url(database);
    url.replace("//postgres@", &format!("//{role}@"))
}

async fn open(database: &str, role: &str) -> Arc<PostgresStore> {
    let config = PostgresConfig::from_url(&url(database, role)).unwrap();
    Arc::new(PostgresStore::open(config).await.unwrap())
}

fn tables(case: &str) -> [TableSpec; 2] {
    let spec = |name: String| TableSpec {
        outbox: true,
        trigger: true,
        ..TableSpec::named(name)
    };
    [
        spec(format!("{case:.43} $tidegate$; -- it's")),
        spec(format!("App.{case}")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_role_without_rights_to_make_anything_does_all_there_is_to_do() {
    let database = Postgres::shared().fresh_database();
    let role = role(&database);
    run(|case| {
        let [table, other] = tables(case);
        let (database, role) = match case {
            // Generations end in one case, which must not end them for the others.
            "generations_end" => {
                let database = Postgres::shared().fresh_database();
                let role = self::role(&database);
                (database, role)
            }
            _ => (database.clone(), role.clone()),
        };
        set_up(&database, &role, &[table.clone(), other.clone()]);
        async move {
            Subject::new(open(&database, &role).await)
                .again(open(&database, &role).await)
                .tables(table, other)
                .takes(Keys::Text, Values::Any)
        }
    })
    .await;
    let owned = format!("select count(*) from pg_class where relowner = '{role}'::regrole");
    assert_eq!(Postgres::shared().sql(&database, &owned), "0");
    let rights = format!(
        "select bool_or(has_schema_privilege('{role}', oid, 'create')) from pg_namespace
         where nspname !~ '^pg_temp'"
    );
    assert_eq!(Postgres::shared().sql(&database, &rights), "f");
}

/// A table of the user's is left as it is but for what was asked for, and one that is not asked for is not made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_there_get_what_was_asked_for() {
    let database = Postgres::shared().fresh_database();
    let role = role(&database);
    let sql = |statements: &str| Postgres::shared().sql(&database, statements);
    sql("create table \"App\".theirs (id bytea primary key, body jsonb, ver bigint not null)");
    let spec = |trigger, outbox| TableSpec {
        name: "App.theirs".into(),
        columns: Columns {
            key: "id".into(),
            value: "body".into(),
            version: "ver".into(),
            expires_at: None,
            updated_at: None,
        },
        value_type: ValueType::Auto,
        create: false,
        trigger,
        outbox,
    };
    let triggers = "select coalesce(string_agg(tgname, ' ' order by tgname), '') from pg_trigger
        where tgrelid = '\"App\".theirs'::regclass";
    set_up(&database, &role, &[spec(false, false)]);
    assert_eq!(sql(triggers), "");
    let store = open(&database, &role).await;
    let refused = tidegate_core::port::Store::open_table(&*store, &spec(true, false)).await;
    assert!(
        matches!(refused, Err(StoreError::Configuration { .. })),
        "{refused:?}"
    );
    set_up(&database, &role, &[spec(true, true)]);
    assert_eq!(
        sql(triggers),
        "tidegate_outside_after tidegate_outside_before tidegate_outside_truncate tidegate_raise"
    );
    tidegate_core::port::Store::open_table(&*store, &spec(true, true))
        .await
        .unwrap();
}

#[test]
fn names_that_cannot_be_are_refused() {
    let long = "x".repeat(64);
    for schema in ["", "a\0b", &long] {
        assert!(postgres::schema(schema, &[]).is_err(), "{schema:?}");
    }
    for table in ["", "tidegate_x", &long] {
        let tables = [TableSpec::named(table)];
        assert!(postgres::schema("public", &tables).is_err(), "{table:?}");
    }
    // A name of several lines does not end a comment.
    let lines = [TableSpec::named("a\nb\rc")];
    let text = postgres::schema("public", &lines).unwrap();
    let (_, end) = text.split_once("A role that only uses all this").unwrap();
    assert!(
        end.contains("grant")
            && end
                .trim_end()
                .lines()
                .skip(1)
                .all(|line| line.starts_with("-- "))
    );
    let database = Postgres::shared().fresh_database();
    Postgres::shared().sql(&database, &text);
    assert!(sqlite::schema(&[TableSpec::named("tidegate_x")]).is_err());
    let outbox = TableSpec {
        outbox: true,
        ..TableSpec::named("kv")
    };
    assert!(sqlite::schema(&[outbox]).is_err());
    let other = tidegate::store_schema("mysql://u:secret@h/d", "public", &[]);
    let message = other.unwrap_err().to_string();
    assert!(
        message.contains("mysql") && !message.contains("secret"),
        "{message}"
    );
}

/// SQLite knows no roles: the store finds nothing left to make.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_of_sqlite_is_made_as_the_store_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let made: std::sync::Mutex<Vec<(std::path::PathBuf, i64)>> = std::sync::Mutex::default();
    run(|case| {
        let spec = |name: String| TableSpec {
            trigger: true,
            ..TableSpec::named(name)
        };
        let [table, other] = [
            spec(case.to_string()),
            spec(format!("{case}\n; it's \"2\"")),
        ];
        let file = folder.path().join(format!("{case}.db"));
        let text = sqlite::schema(&[table.clone(), other.clone()]).unwrap();
        let connection = rusqlite::Connection::open(&file).unwrap();
        for _ in 0..2 {
            connection.execute_batch(&text).unwrap();
        }
        made.lock()
            .unwrap()
            .push((file.clone(), changes(&connection)));
        async move {
            let open = async || {
                let url = format!("sqlite:{}", file.display());
                let config = SqliteConfig::from_url(&url).unwrap();
                Arc::new(SqliteStore::open(config).await.unwrap())
            };
            Subject::new(open().await)
                .again(open().await)
                .tables(table, other)
        }
    })
    .await;
    files.extend(made.into_inner().unwrap());
    assert!(files.len() > 20);
    for (file, before) in files {
        let connection = rusqlite::Connection::open(&file).unwrap();
        assert_eq!(changes(&connection), before, "{}", file.display());
    }
}

/// How often the schema of a file was changed.
fn changes(connection: &rusqlite::Connection) -> i64 {
    let version = connection.query_row("pragma schema_version", [], |row| row.get(0));
    version.unwrap()
}
