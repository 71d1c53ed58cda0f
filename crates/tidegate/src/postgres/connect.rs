//! Connections: a few, made on demand, given back when a call went well and dropped when not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_core::port::{BoxFuture, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, NoTls, Row, SimpleQueryMessage, Statement};

use super::PostgresConfig;
use super::error::{self, Trouble};
use super::outside::OWN;
use super::session::{Adrift, Session};

/// The connections of a store.
pub(super) struct Pool {
    config: PostgresConfig,
    /// One permit per connection that may be in use.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    /// Batches that nobody waits for any more and that may still be under way.
    pub(super) adrift: Adrift,
}

/// One connection with its prepared statements.
struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    statements: HashMap<Arc<str>, Statement>,
    session: Session,
    life: Life,
}

/// What tells one life of a server from the next, and one server from another: no connection outlasts it. A server
/// that crashed may give numbers of transactions out again; one and the same life of it never does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Life(Arc<str>);

/// The start of the server, and that of its statistics: of a server that crashed and came back by itself only these
/// begin anew.
const LIFE: &str = "select concat_ws(' ', extract(epoch from pg_postmaster_start_time()),
                    extract(epoch from pg_stat_get_bgwriter_stat_reset_time()))";

impl Life {
    fn read(answer: &[SimpleQueryMessage]) -> Self {
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Self(row.unwrap_or_default().into())
    }

    /// Whether nothing was lost between them, for certain.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        !self.0.is_empty() && self == other
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The socket is closed at once, and with it what was not committed.
        self.driver.abort();
    }
}

/// A connection in use. Dropped, it is closed; [`Self::give_back`] keeps it.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    connection: Connection,
    /// Made for this lease, so that a failure is no sign of a server that was away meanwhile.
    pub(super) is_new: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(config: PostgresConfig) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(config.connections)),
            idle: Mutex::default(),
            adrift: Adrift::default(),
            config,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection, as soon as one is free.
    pub(super) async fn get(&self) -> Result<Lease<'_>, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = tokio::time::timeout(self.config.timeout, permit).await;
        let permit = permit.map_err(|_| StoreError::unavailable("all connections are in use"))?;
        let permit = permit.map_err(|_| StoreError::unavailable("the store is closed"))?;
        let kept = {
            let mut idle = self.idle();
            idle.retain(|connection| !connection.client.is_closed());
            idle.pop()
        };
        let is_new = kept.is_none();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                self.connect(|e| Trouble::from(e).into_unavailable())
                    .await?
            }
        };
        Ok(Lease {
            pool: self,
            connection,
            is_new,
            _permit: permit,
        })
    }

    /// The first connection of all: what is wrong with it is told as a mistake in the configuration.
    pub(super) async fn get_first(&self) -> Result<Lease<'_>, StoreError> {
        let wrong = |e| error::configuration("connecting to PostgreSQL", &e);
        let connection = self.connect(wrong).await?;
        self.idle().push(connection);
        self.get().await
    }

    async fn connect(
        &self,
        failed: impl Fn(Error) -> StoreError,
    ) -> Result<Connection, StoreError> {
        let limit = self.config.timeout;
        let connect = async {
            let (client, connection) = self.config.server.connect(NoTls).await?;
            let driver = tokio::spawn(async move {
                // Whoever uses the connection learns of its end by an answer.
                let _ = connection.await;
            });
            let mut connection = Connection {
                client,
                driver,
                statements: HashMap::new(),
                session: Session::default(),
                life: Life(Arc::default()),
            };
            // A transaction that this process cannot end any more is ended by the server.
            let millis = limit.as_millis().clamp(1, 2_000_000_000);
            // A statement that is a transaction of its own has the isolation of the connection.
            let settings = format!(
                "set statement_timeout = {millis}; set idle_in_transaction_session_timeout = {millis};
                 set default_transaction_isolation = 'read committed';
                 set default_transaction_read_only = off;
                 set {OWN} = 'on'; {LIFE}"
            );
            connection.life = Life::read(&connection.client.simple_query(&settings).await?);
            Ok::<_, Error>(connection)
        };
        match tokio::time::timeout(limit, connect).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(StoreError::unavailable("connecting took too long")),
        }
    }

    /// Drops the connections that are not in use: the server they led to is not there any more.
    pub(super) fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    /// Waits for the calls under way, but no longer than one may take, then lets go of everything.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.config.connections).unwrap_or(u32::MAX);
        let all = self.permits.acquire_many(all);
        let _ = tokio::time::timeout(self.config.timeout, all).await;
        self.permits.close();
        self.forget_idle();
    }
}

impl Trouble {
    /// Whatever it was, trying again may help.
    fn into_unavailable(self) -> StoreError {
        match StoreError::from(self) {
            StoreError::Refused { message, .. } => StoreError::Unavailable { message },
            other => other,
        }
    }
}

/// An answer that was asked for together with others.
pub(super) type Asked<'a> = BoxFuture<'a, Result<Vec<Row>, Error>>;

/// Parameters of a statement, by place.
pub(super) type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

impl Lease<'_> {
    /// The statement, prepared if it is used for the first time on this connection.
    pub(super) async fn prepare(&mut self, sql: &Arc<str>) -> Result<Statement, Error> {
        if let Some(statement) = self.connection.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.connection.client.prepare(sql).await?;
        let statements = &mut self.connection.statements;
        statements.insert(Arc::clone(sql), statement.clone());
        Ok(statement)
    }

    /// A statement that is sent as soon as it is polled.
    pub(super) fn ask<'a>(&'a self, statement: Statement, parameters: Parameters<'a>) -> Asked<'a> {
        Box::pin(async move { self.connection.client.query(&statement, &parameters).await })
    }

    /// The same without answer and parameters.
    pub(super) fn tell<'a>(&'a self, sql: &'a str) -> Asked<'a> {
        Box::pin(async move {
            self.connection.client.batch_execute(sql).await?;
            Ok(Vec::new())
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.connection.client
    }

    /// Of the server.
    pub(super) fn life(&self) -> &Life {
        &self.connection.life
    }

    /// What the database knows this connection by, for batches in one trip.
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.connection.session
    }

    /// Ends the transaction without effect and keeps the connection if it still answers.
    pub(super) async fn roll_back(self) {
        let undone = self.connection.client.batch_execute("rollback");
        if let Ok(Ok(())) = tokio::time::timeout(self.pool.config.timeout, undone).await {
            self.give_back();
        }
    }

    /// Keeps the connection for the next call.
    pub(super) fn give_back(self) {
        if !self.pool.permits.is_closed() {
            self.pool.idle().push(self.connection);
        }
    }
}

/// Sends all statements before it waits for the first answer. All answers in order, or the first error.
pub(super) async fn pipeline(mut asked: Vec<Asked<'_>>) -> Result<Vec<Vec<Row>>, Error> {
    let mut answers: Vec<Option<Result<Vec<Row>, Error>>> = asked.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut missing = false;
        for (asked, answer) in asked.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                match asked.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *answer = Some(ready),
                    std::task::Poll::Pending => missing = true,
                }
            }
        }
        match missing {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(()),
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}
