//! A TCP proxy that misbehaves when it is told to: between a node and its store or its shared cache, in the test's
//! own process.
//!
//! What is held back or delayed comes later and in order, as over a bad network; what is cut is gone. The target
//! may be changed while it runs, which is a failover behind one address. A proxy made with [`Proxy::postgres`] also
//! reads along in PostgreSQL's protocol, and can lose the answer to one statement: the server has carried it out,
//! and the client never learns.

mod connection;
mod faults;
mod postgres;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::sim::Random;
use connection::Connection;
pub use faults::{Direction, Faults, Way};

/// Something that happens once, to the connection that comes to it first.
enum Trap {
    /// The connection is cut when so many more bytes have gone this way; later ones are lost.
    Bytes(Direction, u64),
    /// The answer to the first statement that fits is lost and its connection cut.
    Answer(Box<dyn Fn(&str) -> bool + Send>),
}

/// What the connections of a proxy share.
struct Shared {
    target: Mutex<SocketAddr>,
    faults: watch::Sender<Faults>,
    /// Counts the cuts; a connection ends when it changes.
    cuts: watch::Sender<u64>,
    trap: Mutex<Option<Trap>>,
    /// Whether it reads along in PostgreSQL's protocol.
    postgres: bool,
    random: Random,
    open: AtomicU64,
    accepted: AtomicU64,
    sprung: AtomicU64,
}

impl Shared {
    fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> SocketAddr {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy on a free port of the loopback interface. It and its connections end with this value.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Proxy {
    /// Starts one for any protocol, on the runtime it is called in.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        Self::listen(target, seed, false).await
    }

    /// Starts one that knows PostgreSQL's protocol (version 3, without TLS).
    ///
    /// # Errors
    /// If no port is free.
    pub async fn postgres(target: SocketAddr, seed: u64) -> io::Result<Self> {
        Self::listen(target, seed, true).await
    }

    async fn listen(target: SocketAddr, seed: u64, postgres: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            faults: watch::Sender::new(Faults::default()),
            cuts: watch::Sender::new(0),
            trap: Mutex::new(None),
            postgres,
            random: Random::new(seed),
            open: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            sprung: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { port, shared, task })
    }

    /// The port it listens on, on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on this happens to all connections, those that are there and new ones. What was set before is
    /// over: what was held back goes on.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }

    /// Everything is as it should be again; what was cut stays cut, and no [trap](Self::lose_answer) is left.
    pub fn heal(&self) {
        *self.shared.trap() = None;
        self.set(Faults::default());
    }

    /// New connections go there. Those that are there stay.
    pub fn set_target(&self, target: SocketAddr) {
        let mut current = self.shared.target.lock();
        **current
            .as_mut()
            .unwrap_or_else(|poisoned| poisoned.get_mut()) = target;
    }

    /// Cuts all connections, with what is on its way in them.
    pub fn cut_all(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts the connection that carries so many more bytes this way, counted over all connections: the bytes up
    /// to there arrive, the rest does not. With 0, the next bytes are lost.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        *self.shared.trap() = Some(Trap::Bytes(direction, bytes));
    }

    /// Loses the answer to the next statement of which the text fits: the server gets it whole and has answered it
    /// to the end when the connection is cut. Only a proxy for PostgreSQL can.
    ///
    /// The text is that of a simple query or of the prepared statement that is bound.
    pub fn lose_answer(&self, fits: impl Fn(&str) -> bool + Send + 'static) {
        *self.shared.trap() = Some(Trap::Answer(Box::new(fits)));
    }

    /// How often a trap was sprung.
    #[must_use]
    pub fn sprung(&self) -> u64 {
        self.shared.sprung.load(Ordering::Acquire)
    }

    /// How many connections there are now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Acquire)
    }

    /// How many connections there ever were.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ended with this task: a connection does not outlive its proxy.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    shared.accepted.fetch_add(1, Ordering::AcqRel);
                    connections.spawn(serve(client, Arc::clone(&shared)));
                }
                // Too many open files, or a client that has gone again.
                Err(_) => pause(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    if shared.faults.borrow().refuse {
        let _ = client.set_zero_linger();
        return;
    }
    shared.open.fetch_add(1, Ordering::AcqRel);
    Connection::new(&shared).run(client).await;
    shared.open.fetch_sub(1, Ordering::AcqRel);
}

/// The network is real, and its time too.
async fn pause(time: Duration) {
    tokio::time::sleep_until(tokio::time::Instant::now() + time).await;
}
