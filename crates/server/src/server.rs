//! What all connections share: the gate, the limits, the list of clients, the cursors of `SCAN`, a few counters.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::Gate;
use tidegate::port::Timestamp;

use crate::client::Clients;
use crate::command::Cursors;
use crate::config::ServerConfig;

/// One running server.
pub(crate) struct Server {
    pub(crate) gate: Gate,
    pub(crate) config: ServerConfig,
    /// Where it really listens, the port known.
    pub(crate) address: SocketAddr,
    /// Without password.
    pub(crate) store: String,
    /// Without password; nothing: this node is alone.
    pub(crate) shared: Option<String>,
    pub(crate) started: Timestamp,
    pub(crate) clients: Clients,
    pub(crate) cursors: Cursors,
    pub(crate) counters: Counters,
}

/// What happened since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    /// Connections turned away because there were as many as allowed.
    pub(crate) connections_rejected: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Commands that broke down; each is a bug.
    pub(crate) broke_down: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

impl Server {
    pub(crate) fn new(
        gate: Gate,
        config: ServerConfig,
        address: SocketAddr,
        store: String,
        shared: Option<String>,
    ) -> Self {
        let started = gate.now();
        Self {
            gate,
            config,
            address,
            store,
            shared,
            started,
            clients: Clients::default(),
            cursors: Cursors::new(started),
            counters: Counters::default(),
        }
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.gate.now().since(self.started)
    }
}
