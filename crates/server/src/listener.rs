//! Taking connections, and ending them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::connection::Connection;
use crate::server::{Counters, Server};

/// What a client is told that came when there were as many as allowed.
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

/// How long to wait when no connection can be taken, as when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a server. Owns their tasks.
pub(crate) struct Listener {
    listener: TcpListener,
    server: Arc<Server>,
    connections: JoinSet<()>,
}

impl Listener {
    pub(crate) fn new(listener: TcpListener, server: Arc<Server>) -> Self {
        Self {
            listener,
            server,
            connections: JoinSet::new(),
        }
    }

    /// Takes connections until this future is dropped.
    pub(crate) async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(ended) = self.connections.join_next(), if !self.connections.is_empty() => {
                    report(ended);
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => self.accept(stream, address),
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a connection; trying again");
                        sleep_until(Instant::now() + ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn accept(&mut self, stream: TcpStream, address: SocketAddr) {
        let server = &self.server;
        if server.clients.len() >= server.config.connections_max {
            Counters::add(&server.counters.connections_rejected, 1);
            // As much as fits into the system's buffer at once, which this does.
            let _ = stream.try_write(FULL);
            return;
        }
        Counters::add(&server.counters.connections, 1);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let local = stream.local_addr().unwrap_or(server.address);
        let client = server.clients.add(address, local, server.gate.now());
        let connection = Connection::new(stream, Arc::clone(server), client);
        self.connections.spawn(async move {
            if let Err(error) = connection.run().await {
                report_broken(address, &error);
            }
        });
    }

    /// Stops listening, lets every connection finish what is under way, and ends those that have not by `deadline`.
    pub(crate) async fn close(mut self, deadline: Instant) {
        drop(self.listener);
        self.server.clients.close_all();
        let all = async {
            while let Some(ended) = self.connections.join_next().await {
                report(ended);
            }
        };
        if timeout_at(deadline, all).await.is_err() {
            let left = self.connections.len();
            tracing::warn!(
                connections = left,
                "not all connections ended in time; closing them"
            );
            self.connections.shutdown().await;
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection broke down; this is a bug");
    }
}

/// Clients go away all the time; that is no news.
fn report_broken(address: SocketAddr, error: &io::Error) {
    tracing::debug!(client = %address, %error, "connection broken");
}
