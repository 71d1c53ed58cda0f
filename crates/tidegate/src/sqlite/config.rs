//! Where the database is, and how it is used.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_core::port::StoreError;

/// What a [`SqliteStore`](super::SqliteStore) is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteConfig {
    /// The file, made if missing; nothing for a database in memory, which ends with the store.
    pub path: Option<PathBuf>,
    /// How many threads read. A database in memory is read by the thread that writes.
    pub readers: usize,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
}

/// More threads than that only get in each other's way.
const READERS_MAX: usize = 64;

impl SqliteConfig {
    /// A database file with default settings.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            readers: 2,
            busy_timeout: Duration::from_secs(5),
        }
    }

    /// A database in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            path: None,
            ..Self::file("")
        }
    }

    /// Reads `sqlite:path` or `sqlite::memory:`, with options after a question mark: `readers=2` and
    /// `busy_timeout=5s` (or `500ms`). The path is taken as it is; relative ones start at the working folder.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] naming what is not understood.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let rest = url.strip_prefix("sqlite:").ok_or_else(|| {
            StoreError::configuration("the address of a SQLite database starts with `sqlite:`")
        })?;
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        let mut config = match path {
            "" => {
                return Err(StoreError::configuration(
                    "`sqlite:` is followed by the path of a file, or by `:memory:`",
                ));
            }
            ":memory:" => Self::memory(),
            path => Self::file(path),
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            config.set(option)?;
        }
        Ok(config)
    }

    fn set(&mut self, option: &str) -> Result<(), StoreError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong =
            |what: &str| StoreError::configuration(format_args!("sqlite option `{name}`: {what}"));
        match name {
            "readers" => {
                let readers = value.parse().ok();
                let readers = readers.filter(|n| (1..=READERS_MAX).contains(n));
                self.readers = readers.ok_or_else(|| wrong("a number from 1 to 64 is wanted"))?;
            }
            "busy_timeout" => {
                let wrong = || wrong("a time such as `5s` or `500ms` is wanted");
                self.busy_timeout = duration(value).ok_or_else(wrong)?;
            }
            _ => {
                return Err(wrong(
                    "there is no such option; there are `readers` and `busy_timeout`",
                ));
            }
        }
        Ok(())
    }
}

/// `5s` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let seconds = text.strip_suffix('s')?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let config = |url| SqliteConfig::from_url(url).unwrap();
        assert_eq!(config("sqlite:a/b.db"), SqliteConfig::file("a/b.db"));
        assert_eq!(config("sqlite:///a/b.db"), SqliteConfig::file("/a/b.db"));
        assert_eq!(config("sqlite::memory:"), SqliteConfig::memory());
        let found = config("sqlite:x?readers=4&busy_timeout=250ms");
        assert_eq!((found.readers, found.busy_timeout.as_millis()), (4, 250));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let message = |url| SqliteConfig::from_url(url).unwrap_err().to_string();
        assert!(message("sqlite:").contains("path"));
        assert!(message("postgres:x").contains("sqlite:"));
        assert!(message("sqlite:x?reders=1").contains("reders"));
        assert!(message("sqlite:x?readers=0").contains("readers"));
        assert!(message("sqlite:x?busy_timeout=5").contains("busy_timeout"));
    }
}
