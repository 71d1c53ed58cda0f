//! Opening ports by address, for those who choose them at run time.

use std::sync::Arc;

use tidegate_core::memory::MemoryStore;
use tidegate_core::port::{Store, StoreError};
use tidegate_core::{Error, Result};

/// Opens a store by its URL:
///
/// - `sqlite:PATH`, a file made if it is missing (feature `sqlite`);
/// - `postgres://USER:PASSWORD@HOST:PORT/DATABASE` (feature `postgres`);
/// - `memory:`, which forgets everything with the process.
///
/// # Errors
/// Configuration if the URL is none of these or its options are unknown; unavailable if the store cannot be
/// reached.
pub async fn open_store(url: &str) -> Result<Arc<dyn Store>> {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    match scheme {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let config = crate::sqlite::SqliteConfig::from_url(url)?;
            Ok(Arc::new(crate::sqlite::SqliteStore::open(config).await?))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let config = crate::postgres::PostgresConfig::from_url(url)?;
            Ok(Arc::new(
                crate::postgres::PostgresStore::open(config).await?,
            ))
        }
        _ => Err(unknown(scheme)),
    }
}

/// The statements that make what the store of this URL needs for these tables, for somebody to run who may make them;
/// nothing is connected to. `schema` is where PostgreSQL keeps what names no schema, `public` as a rule; SQLite has
/// none. A store in memory needs none of it.
///
/// # Errors
/// Configuration if the URL is none of those of [`open_store`], or a name cannot be that of a table.
pub fn store_schema(
    url: &str,
    schema: &str,
    tables: &[tidegate_core::port::TableSpec],
) -> Result<String> {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    match scheme {
        "memory" => Ok("-- A store in memory needs no schema.\n".to_owned()),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(crate::sqlite::schema(tables)?),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(crate::postgres::schema(schema, tables)?),
        _ => {
            // Only one of the stores knows schemas.
            let _ = (schema, tables);
            Err(unknown(scheme))
        }
    }
}

fn unknown(scheme: &str) -> Error {
    Error::from(StoreError::configuration(format_args!(
        "store url: '{}' is none of the stores of this build ({})",
        scheme.escape_debug(),
        STORES.join(", ")
    )))
}

/// The schemes this build knows.
const STORES: &[&str] = &[
    #[cfg(feature = "sqlite")]
    "sqlite:",
    #[cfg(feature = "postgres")]
    "postgres:",
    "memory:",
];

/// Opens the cache that several nodes share, by the URL of its server (feature `redis`):
/// `redis://USER:PASSWORD@HOST:PORT/NUMBER` (or `valkey://`), `redis+unix:///PATH`, or several with commas between
/// them: servers of one Redis Cluster, or copies of one server. [`RedisConfig`](crate::redis::RedisConfig) has what
/// can be chosen beside it.
///
/// `clock` is the one of the gate: what a near cache is told of the shared one is told in its time.
///
/// # Errors
/// Configuration if the URL is none of these; unavailable if no server can be reached that takes writes.
#[cfg(feature = "redis")]
pub async fn open_shared(
    url: &str,
    clock: Arc<dyn tidegate_core::port::Clock>,
) -> Result<Arc<dyn tidegate_core::port::SharedCache>, tidegate_core::port::SharedError> {
    let urls = url.split(',').map(str::trim).filter(|url| !url.is_empty());
    open_shared_with(crate::redis::RedisConfig::from_urls(urls)?, clock).await
}

/// Opens the shared cache that `config` describes.
///
/// # Errors
/// As [`open_shared`].
#[cfg(feature = "redis")]
pub async fn open_shared_with(
    config: crate::redis::RedisConfig,
    clock: Arc<dyn tidegate_core::port::Clock>,
) -> Result<Arc<dyn tidegate_core::port::SharedCache>, tidegate_core::port::SharedError> {
    let cache = crate::redis::RedisSharedCache::open(config, clock).await?;
    Ok(Arc::new(cache))
}

/// Opens the journal in the folder `path`, which is made if it is missing.
///
/// # Errors
/// Configuration if the journal is damaged where no crash can have damaged it; unavailable if the folder
/// cannot be used or another process has it open.
#[cfg(feature = "journal")]
pub async fn open_journal(path: &std::path::Path) -> Result<Arc<dyn tidegate_core::port::Journal>> {
    open_journal_with(crate::journal::JournalConfig::new(path)).await
}

/// Opens the journal that `config` describes, with its folder and its bounds.
///
/// # Errors
/// As [`open_journal`].
#[cfg(feature = "journal")]
pub async fn open_journal_with(
    config: crate::journal::JournalConfig,
) -> Result<Arc<dyn tidegate_core::port::Journal>> {
    let opened = tokio::task::spawn_blocking(move || crate::journal::FileJournal::open(config));
    let journal = opened.await.map_err(|_| {
        Error::new(
            tidegate_core::ErrorKind::Unavailable,
            "opening the journal was cut off",
        )
    })?;
    Ok(Arc::new(journal?))
}
