//! Where the shared cache is, and how it is used.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use tidegate_core::port::{LEASE, SHARDS, SharedError};

/// What a [`RedisSharedCache`](super::RedisSharedCache) is opened with. Printing it never shows a password.
#[derive(Clone)]
pub struct RedisConfig {
    pub(super) servers: Vec<ConnectionInfo>,
    /// What the names of all keys begin with. Printable ASCII without blanks and braces.
    pub prefix: String,
    /// How many shards there are, at least one; the same on every node.
    pub shards: u16,
    /// How long a lease holds.
    pub lease: Duration,
    /// How many replicas must have a write-back write before it is acknowledged.
    pub replicas: u32,
    /// How long a replica may take for that.
    pub replica_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the answers to what one call sent.
    pub response_timeout: Duration,
}

const SHARDS_MAX: u16 = 16_384;
const PREFIX_BYTES_MAX: usize = 64;

impl RedisConfig {
    /// Reads `redis://user:password@host:port/number` (`valkey://` is the same) or
    /// `redis+unix:///path?user=user&pass=password&db=number`.
    ///
    /// # Errors
    /// [`SharedError::Configuration`] naming what is not understood; never showing the address itself.
    pub fn from_url(url: &str) -> Result<Self, SharedError> {
        Self::from_urls([url])
    }

    /// Reads several addresses: of some servers of one Redis Cluster, which know the others; or of a server and its
    /// replicas, of which the only one that takes writes is used.
    ///
    /// # Errors
    /// As [`from_url`](Self::from_url), and if there is none.
    pub fn from_urls<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Self, SharedError> {
        let servers: Vec<_> = urls.into_iter().map(server).collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(SharedError::configuration(
                "the shared cache has no address",
            ));
        }
        Ok(Self {
            servers,
            prefix: "tg".to_owned(),
            shards: SHARDS,
            lease: LEASE,
            replicas: 0,
            replica_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
        })
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<(), SharedError> {
        let prefix = self.prefix.as_bytes();
        let may = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.iter().all(may) {
            return Err(SharedError::configuration(
                "the prefix of the shared cache must be 1 to 64 printable ASCII characters without blanks and braces",
            ));
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err(SharedError::configuration(
                "the shared cache must have 1 to 16384 shards",
            ));
        }
        let millis = Duration::from_millis(1);
        let times = [
            ("lease", self.lease),
            ("replica_timeout", self.replica_timeout),
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
        ];
        for (name, time) in times {
            if !(millis..=Duration::from_secs(24 * 60 * 60)).contains(&time) {
                return Err(SharedError::configuration(format_args!(
                    "`{name}` of the shared cache must be at least 1ms and at most a day"
                )));
            }
        }
        Ok(())
    }
}

fn server(url: &str) -> Result<ConnectionInfo, SharedError> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("redis" | "valkey") => {
            if url.contains('?') || url.contains('#') {
                return Err(SharedError::configuration(
                    "the address of a shared cache takes no options after `?` or `#`",
                ));
            }
        }
        Some("redis+unix") => {}
        Some("rediss" | "valkeys") => {
            return Err(SharedError::configuration(
                "encrypted connections to the shared cache are not supported yet, and `rediss://` would be a promise not \
                 kept: write `redis://`",
            ));
        }
        _ => {
            return Err(SharedError::configuration(
                "the address of a shared cache starts with `redis://`, `valkey://` or `redis+unix://`",
            ));
        }
    }
    url.into_connection_info().map_err(|e| {
        // The category is a fixed text; the detail may repeat a part of the address.
        SharedError::configuration(format_args!(
            "the address of the shared cache is not understood: {}",
            e.category()
        ))
    })
}

/// Where a server is, for messages: without user and password.
pub(super) fn place(server: &ConnectionInfo) -> String {
    match server.addr() {
        ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
        ConnectionAddr::Unix(path) => path.display().to_string(),
        // Refused above, and the crate's enumeration may grow.
        _ => "an address".to_owned(),
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(place).collect();
        f.debug_struct("RedisConfig")
            .field("servers", &servers)
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("lease", &self.lease)
            .field("replicas", &self.replicas)
            .field("replica_timeout", &self.replica_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_not_shown() {
        let config =
            RedisConfig::from_urls(["redis://me:hunter2@cache.example:6380/3", "valkey://b"])
                .unwrap();
        let first = config.servers[0].redis_settings();
        assert_eq!(
            (first.username(), first.password(), first.db()),
            (Some("me"), Some("hunter2"), 3)
        );
        let shown = format!("{config:?}");
        assert!(
            shown.contains("cache.example:6380") && shown.contains("b:6379"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        RedisConfig::from_url("redis+unix:///run/redis.sock?pass=hunter2").unwrap();
        config.check().unwrap();
    }

    #[test]
    fn what_is_not_understood_is_named_and_not_repeated() {
        let message = |url| RedisConfig::from_url(url).unwrap_err().to_string();
        assert!(message("rediss://me:hunter2@a").contains("encrypted"));
        assert!(message("postgres://me:hunter2@a").contains("redis://"));
        assert!(message("redis://a?timeout=1s").contains("options"));
        for url in [
            "redis://me:hunter2@a:port",
            "redis://me:hunter2@a/x",
            "redis://me:hunter2@",
            "rediss://me:hunter2@a",
        ] {
            assert!(!message(url).contains("hunter2"), "{}", message(url));
        }
        assert!(RedisConfig::from_urls([]).is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |change: fn(&mut RedisConfig)| {
            let mut config = RedisConfig::from_url("redis://a").unwrap();
            change(&mut config);
            assert!(config.check().is_err(), "{config:?}");
        };
        refused(|config| config.prefix = "a{b".to_owned());
        refused(|config| config.prefix.clear());
        refused(|config| config.shards = 0);
        refused(|config| config.lease = Duration::ZERO);
        refused(|config| config.response_timeout = Duration::MAX);
    }
}
