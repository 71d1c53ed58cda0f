//! Where the database is, and how it is used.

use std::fmt;
use std::time::Duration;

use tidegate_core::port::StoreError;
use tokio_postgres::config::{Host, SslMode};

/// What a [`PostgresStore`](super::PostgresStore) is opened with. Printing it never shows the password.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(super) server: tokio_postgres::Config,
    /// The most connections held; they are made on demand.
    pub connections: usize,
    /// How long one call may take before its connection is given up.
    pub timeout: Duration,
    /// Whether the sequence and tables of the store's own are made if they are missing.
    pub create: bool,
}

const CONNECTIONS_MAX: usize = 1000;

impl PostgresConfig {
    /// Reads `postgres://user:password@host:port/database`, with options after a question mark: those of
    /// libpq that the driver knows, and `connections=8`, `timeout=10s` (or `500ms`) and `create=false`.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] naming what is not understood; never showing the address itself.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let (base, options) = url.split_once('?').unwrap_or((url, ""));
        if !base.starts_with("postgres://") && !base.starts_with("postgresql://") {
            return Err(StoreError::configuration(
                "the address of a PostgreSQL database starts with `postgres://`",
            ));
        }
        let mut config = Self {
            server: tokio_postgres::Config::new(),
            connections: 8,
            timeout: Duration::from_secs(10),
            create: true,
        };
        let mut others = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if !config.set(name, value)? {
                others.push(option);
            }
        }
        let rest = format!("{base}?{}", others.join("&"));
        config.server =
            rest.trim_end_matches('?')
                .parse()
                .map_err(|e: tokio_postgres::Error| {
                    // The cause names an option or a part of an address, and not its value.
                    let cause = std::error::Error::source(&e).map(ToString::to_string);
                    StoreError::configuration(format_args!(
                        "the address of the PostgreSQL database is not understood: {}",
                        cause.unwrap_or_else(|| e.to_string())
                    ))
                })?;
        if config.server.get_ssl_mode() == SslMode::Prefer {
            config.server.ssl_mode(SslMode::Disable);
        }
        if config.server.get_hosts().is_empty() {
            return Err(StoreError::configuration(
                "the address of the PostgreSQL database names no host",
            ));
        }
        if config.server.get_application_name().is_none() {
            config.server.application_name("tidegate");
        }
        Ok(config)
    }

    /// Takes an option of our own, or tells that it is none.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, StoreError> {
        let wrong = |wanted: &str| {
            StoreError::configuration(format_args!("postgres option `{name}`: {wanted} is wanted"))
        };
        match name {
            "connections" => {
                let connections = value.parse().ok();
                let connections = connections.filter(|n| (1..=CONNECTIONS_MAX).contains(n));
                self.connections = connections.ok_or_else(|| wrong("a number from 1 to 1000"))?;
            }
            "timeout" => {
                let timeout = duration(value).filter(|t| *t >= Duration::from_millis(1));
                self.timeout = timeout.ok_or_else(|| wrong("a time such as `10s` or `500ms`"))?;
            }
            "create" => {
                self.create = value.parse().map_err(|_| wrong("`true` or `false`"))?;
            }
            "sslmode" if value != "disable" && value != "prefer" && value != "allow" => {
                return Err(StoreError::configuration(format_args!(
                    "postgres option `sslmode`: encrypted connections are not supported yet, and \
                     `{}` would be a promise not kept",
                    value.escape_debug()
                )));
            }
            "sslmode" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `10s` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let seconds = text.strip_suffix('s')?;
    seconds.parse().ok().map(Duration::from_secs)
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.server.get_hosts().iter().map(host).collect();
        f.debug_struct("PostgresConfig")
            .field("hosts", &hosts)
            .field("ports", &self.server.get_ports())
            .field("database", &self.server.get_dbname())
            .field("user", &self.server.get_user())
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .field("create", &self.create)
            .finish_non_exhaustive()
    }
}

fn host(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_not_shown() {
        let url =
            "postgres://me:hunter2@db.example:5433/shop?connections=3&timeout=1500ms&create=false";
        let config = PostgresConfig::from_url(url).unwrap();
        assert_eq!(config.server.get_password(), Some(&b"hunter2"[..]));
        assert_eq!(config.server.get_dbname(), Some("shop"));
        assert_eq!(
            (
                config.connections,
                config.timeout.as_millis(),
                config.create
            ),
            (3, 1500, false)
        );
        let shown = format!("{config:?}");
        assert!(
            shown.contains("db.example") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn encryption_is_refused_and_not_left_out() {
        for mode in ["require", "verify-full"] {
            let url = format!("postgres://me@db/shop?sslmode={mode}");
            let message = PostgresConfig::from_url(&url).unwrap_err().to_string();
            assert!(message.contains("sslmode"), "{message}");
        }
        PostgresConfig::from_url("postgres://me@db/shop?sslmode=disable").unwrap();
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let message = |url| PostgresConfig::from_url(url).unwrap_err().to_string();
        assert!(message("sqlite:x").contains("postgres://"));
        assert!(message("postgres://me:hunter2@db/x?tiemout=1s").contains("tiemout"));
        assert!(message("postgres://me@db/x?timeout=1").contains("timeout"));
        assert!(message("postgres://me@db/x?connections=0").contains("connections"));
        assert!(!message("postgres://me:hunter2@db:port/x").contains("hunter2"));
    }
}
