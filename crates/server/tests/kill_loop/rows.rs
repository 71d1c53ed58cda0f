//! The store behind the server, seen without it: made strict, read, and written by somebody else.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use tidegate::port::{Store, TableSpec, Timestamp};
use tidegate::{Key, open_store};
use tidegate_testkit::servers::Postgres;

use super::ledger::BAD;

pub(crate) enum Rows<'a> {
    Sqlite(PathBuf),
    Postgres(&'a Postgres, String),
}

impl<'a> Rows<'a> {
    pub(crate) fn sqlite(file: PathBuf) -> Self {
        Self::Sqlite(file)
    }

    pub(crate) fn postgres(server: &'a Postgres, database: String) -> Self {
        Self::Postgres(server, database)
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
            Self::Postgres(server, database) => server.url(database),
        }
    }

    /// The part of the configuration that names it.
    pub(crate) fn section(&self) -> String {
        format!("[store]\nurl = '{}'\n", self.url())
    }

    /// From now on the table `strict` takes no bad values.
    pub(crate) fn refuse_bad_values(&self) {
        match self {
            Self::Sqlite(file) => {
                let database = Connection::open(file).unwrap();
                for event in ["insert", "update"] {
                    let trigger = format!(
                        "create trigger strict_{event} before {event} on strict when new.value like '{BAD}%' \
                         begin select raise(abort, 'bad values are refused'); end"
                    );
                    database.execute_batch(&trigger).unwrap();
                }
            }
            Self::Postgres(server, database) => {
                server.sql(
                    database,
                    &format!(
                        "alter table strict add constraint no_bad check (value not like '{BAD}%')"
                    ),
                );
            }
        }
    }

    /// Adds to the row of a key, if it is there, as a program that knows nothing of tidegate does; what was added.
    pub(crate) fn add_from_outside(&self, key: &str, by: i64) -> i64 {
        match self {
            Self::Sqlite(file) => {
                let database = Connection::open(file).unwrap();
                database
                    .busy_timeout(std::time::Duration::from_secs(10))
                    .unwrap();
                let sql = "update count set value = cast(cast(value as integer) + ?2 as text) where key = ?1";
                let changed = database.execute(sql, (key, by)).unwrap();
                i64::try_from(changed).unwrap() * by
            }
            Self::Postgres(server, database) => {
                let sql = format!(
                    "update count set value = (value::bigint + {by})::text where key = '{key}' returning 1"
                );
                i64::from(!server.sql(database, &sql).is_empty()) * by
            }
        }
    }

    /// The rows of keys `class:rest` in the tables of their classes.
    pub(crate) fn load(&self, keys: &[String]) -> Vec<Option<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store: Arc<dyn Store> = open_store(&self.url()).await.unwrap();
            let mut rows = Vec::new();
            for key in keys {
                let table = key.split_once(':').unwrap().0;
                let table = store.open_table(&TableSpec::named(table)).await.unwrap();
                rows.push((table, Key::from(key.as_str())));
            }
            let entries = store.load(&rows, Timestamp::from_millis(1)).await.unwrap();
            store.close().await;
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            entries
                .into_iter()
                .map(|entry| entry.map(|entry| text(&entry.value)))
                .collect()
        })
    }
}
