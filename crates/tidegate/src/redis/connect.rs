//! One connection to one server, whose identity is known.
//!
//! A server that was restarted, promoted or demoted is another: what it holds may not be what was written. Its identity
//! is asked at the start of a connection, and again and again while it lasts; a connection whose server became another,
//! or a replica, is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, PushInfo, Value,
};
use tidegate_core::port::SharedError;
use tokio::sync::Notify;

use super::config::place;
use super::error::{Refusal, lost, odd, refusal};
use super::layout::Identity;

/// How a server is connected to.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) response: Duration,
    /// Beyond it for what waits for replicas.
    pub(super) replica: Duration,
}

/// What is done with what a server tells unasked, in the order told.
pub(super) type Told = Box<dyn Fn(PushInfo) + Send + Sync>;

/// A connection. It ends when it is left.
pub(super) struct Live {
    pub(super) place: String,
    pub(super) host: String,
    pub(super) identity: Identity,
    shared: MultiplexedConnection,
    /// Held up by whatever waits for replicas, and by nothing else.
    waiting: Option<MultiplexedConnection>,
    is_left: AtomicBool,
    left: Notify,
}

/// What a server says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct About {
    pub(super) identity: Identity,
    pub(super) is_primary: bool,
    pub(super) is_cluster: bool,
    pub(super) is_loading: bool,
    /// As `redis 7.0.15`.
    pub(super) server: String,
    pub(super) version_major: u32,
}

impl Live {
    /// Connects to a server that takes writes.
    pub(super) async fn dial(
        server: &ConnectionInfo,
        timeouts: Timeouts,
        waits_for_replicas: bool,
    ) -> Result<(Self, About), SharedError> {
        let place = place(server);
        let shared = connect(server, timeouts.connect, timeouts.response, None).await?;
        let about = about(&shared, &place).await?;
        about.check(&place)?;
        let waiting = match waits_for_replicas {
            false => None,
            true => {
                let patience = timeouts.response.saturating_add(timeouts.replica);
                let waiting = connect(server, timeouts.connect, patience, None).await?;
                if self::about(&waiting, &place).await?.identity != about.identity {
                    return Err(SharedError::unavailable(format_args!(
                        "{place} became another server"
                    )));
                }
                Some(waiting)
            }
        };
        let live = Self {
            host: place
                .rsplit_once(':')
                .map_or("", |(host, _)| host)
                .to_owned(),
            place,
            identity: about.identity,
            shared,
            waiting,
            is_left: AtomicBool::new(false),
            left: Notify::new(),
        };
        Ok((live, about))
    }

    /// Sends one command.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, SharedError> {
        let sent = self.shared.clone().send_packed_command(command).await;
        sent.map_err(|e| self.broke(&e))
    }

    /// Sends some commands at once.
    pub(super) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, SharedError> {
        send_all(&self.shared, commands)
            .await
            .map_err(|e| self.broke(&e))
    }

    /// The same, over the connection that may be held up.
    pub(super) async fn send_and_wait(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, SharedError> {
        let connection = self.waiting.as_ref().unwrap_or(&self.shared);
        send_all(connection, commands)
            .await
            .map_err(|e| self.broke(&e))
    }

    /// Whether the server is still the one that was connected to, and takes writes.
    pub(super) async fn is_the_same(&self) -> bool {
        let about = about(&self.shared, &self.place).await;
        about.is_ok_and(|about| about.is_primary && about.identity == self.identity)
    }

    fn broke(&self, error: &redis::RedisError) -> SharedError {
        self.leave();
        lost(error, &self.place)
    }

    /// Nobody uses it from now on.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
        self.left.notify_one();
    }

    pub(super) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire)
    }

    /// Returns when it was left. For one waiter.
    pub(super) async fn left(&self) {
        while !self.is_left() {
            self.left.notified().await;
        }
    }
}

async fn send_all(
    connection: &MultiplexedConnection,
    commands: &Pipeline,
) -> redis::RedisResult<Vec<Value>> {
    let count = commands.len();
    connection
        .clone()
        .send_packed_commands(commands, 0, count)
        .await
}

/// Opens a connection; one that is told changes speaks the third protocol.
pub(super) async fn connect(
    server: &ConnectionInfo,
    connect_timeout: Duration,
    response_timeout: Duration,
    told: Option<Told>,
) -> Result<MultiplexedConnection, SharedError> {
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(response_timeout))
        .set_pipeline_buffer_size(1024);
    let mut settings = server.redis_settings().clone().set_skip_set_lib_name();
    if let Some(told) = told {
        config = config.set_push_sender(move |push| {
            told(push);
            Ok::<(), ()>(())
        });
        settings = settings.set_protocol(ProtocolVersion::RESP3);
    }
    let server = server.clone().set_redis_settings(settings);
    let at = place(&server);
    let client = Client::open(server).map_err(|e| lost(&e, &at))?;
    let connected = client.get_multiplexed_async_connection_with_config(&config);
    connected.await.map_err(|e| lost(&e, &at))
}

/// Asks a server what it is.
pub(super) async fn about(
    connection: &MultiplexedConnection,
    place: &str,
) -> Result<About, SharedError> {
    let mut commands = Pipeline::new();
    for section in ["server", "replication", "cluster", "persistence"] {
        commands.cmd("INFO").arg(section);
    }
    let answers = send_all(connection, &commands).await;
    let answers = answers.map_err(|e| lost(&e, place))?;
    let text = answers
        .into_iter()
        .map(|answer| text(answer, place))
        .collect::<Result<String, _>>()?;
    About::read(&text).ok_or_else(|| odd("INFO"))
}

/// The text of an answer.
pub(super) fn text(answer: Value, place: &str) -> Result<String, SharedError> {
    match answer {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        Value::ServerError(error) => Err(match refusal(&error, "") {
            Refusal::Leave(error) | Refusal::Failed(error) => error,
            _ => SharedError::unavailable(format_args!("{place} does not answer for itself")),
        }),
        _ => Err(odd("a text")),
    }
}

/// The value of a line `name:value` of what INFO tells.
pub(super) fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value.trim())
}

impl About {
    fn read(info: &str) -> Option<Self> {
        let half = |name| {
            let id = line(info, name)?.get(..16)?;
            u64::from_str_radix(id, 16).ok()
        };
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&half("run_id")?.to_be_bytes());
        identity[8..].copy_from_slice(&half("master_replid")?.to_be_bytes());
        let (name, version) = match line(info, "valkey_version") {
            Some(version) => ("valkey", version),
            None => ("redis", line(info, "redis_version")?),
        };
        Some(Self {
            identity,
            is_primary: line(info, "role")? == "master",
            is_cluster: line(info, "cluster_enabled") == Some("1"),
            is_loading: line(info, "loading") == Some("1"),
            server: format!("{name} {version}"),
            version_major: version.split('.').next()?.parse().ok()?,
        })
    }

    /// Refuses what cannot serve.
    fn check(&self, place: &str) -> Result<(), SharedError> {
        if self.version_major < 7 {
            return Err(SharedError::configuration(format_args!(
                "the shared cache at {place} is {}; Redis 7.0 or Valkey is needed",
                self.server.escape_debug()
            )));
        }
        if !self.is_primary {
            return Err(SharedError::unavailable(format_args!(
                "{place} is a replica"
            )));
        }
        if self.is_loading {
            return Err(SharedError::unavailable(format_args!(
                "{place} loads its data"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_makes_another_server() {
        let info = |run: char, history: char| {
            format!(
                "# Server\r\nredis_version:7.0.15\r\nrun_id:{}\r\nrole:master\r\nmaster_replid:{}\r\n\
                 cluster_enabled:0\r\nloading:0\r\n",
                String::from(run).repeat(40),
                String::from(history).repeat(40)
            )
        };
        let read = |run, history| About::read(&info(run, history)).unwrap();
        let about = read('a', 'b');
        assert_eq!(about.server, "redis 7.0.15");
        about.check("here").unwrap();
        assert_ne!(about.identity, read('a', 'c').identity);
        assert_ne!(about.identity, read('c', 'b').identity);
        assert_eq!(About::read("role:master\r\n"), None);
    }

    #[test]
    fn what_cannot_serve_is_refused() {
        let mut about = About {
            identity: [0; 16],
            is_primary: true,
            is_cluster: false,
            is_loading: false,
            server: "redis 6.2.0".to_owned(),
            version_major: 6,
        };
        assert!(about.check("here").unwrap_err().to_string().contains("7.0"));
        about.version_major = 8;
        about.check("here").unwrap();
        about.is_primary = false;
        assert!(about.check("here").is_err());
    }
}
