//! The list of connected clients, as `CLIENT LIST` shows it and the shutdown wakes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::task::AtomicWaker;
use tidegate::port::Timestamp;

/// What others may know of a connection.
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    local: SocketAddr,
    connected: Timestamp,
    /// When it last sent or took something, in milliseconds since the epoch.
    last_active: AtomicU64,
    /// 2 or 3.
    protocol: AtomicU8,
    words: Mutex<Words>,
    /// Set once: the connection finishes what is under way and ends.
    closing: AtomicBool,
    waker: AtomicWaker,
}

/// What a client says of itself.
#[derive(Clone, Default)]
pub(crate) struct Words {
    pub(crate) name: Vec<u8>,
    pub(crate) library: Vec<u8>,
    pub(crate) library_version: Vec<u8>,
}

impl Client {
    pub(crate) fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_protocol(&self, version: u8) {
        self.protocol.store(version, Ordering::Relaxed);
    }

    pub(crate) fn touch(&self, now: Timestamp) {
        self.last_active.store(now.as_millis(), Ordering::Relaxed);
    }

    pub(crate) fn last_active(&self) -> Timestamp {
        Timestamp::from_millis(self.last_active.load(Ordering::Relaxed))
    }

    /// Lets the connection's task be woken when it is to end.
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// One line of `CLIENT LIST`, without its end.
    pub(crate) fn line(&self, now: Timestamp) -> Vec<u8> {
        let words = self.words().clone();
        let mut line = format!(
            "id={} addr={} laddr={} name=",
            self.id, self.address, self.local
        )
        .into_bytes();
        line.extend_from_slice(&words.name);
        let rest = format!(
            " age={} idle={} flags=N db=0 sub=0 psub=0 multi=-1 user=default resp={} lib-name=",
            now.since(self.connected).as_secs(),
            now.since(self.last_active()).as_secs(),
            self.protocol.load(Ordering::Relaxed),
        );
        line.extend_from_slice(rest.as_bytes());
        line.extend_from_slice(&words.library);
        line.extend_from_slice(b" lib-ver=");
        line.extend_from_slice(&words.library_version);
        line
    }
}

/// All connected clients.
#[derive(Default)]
pub(crate) struct Clients {
    next_id: AtomicU64,
    /// By their numbers; those who close take themselves out.
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// New ones are closed at once.
    closing: AtomicBool,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client into the list.
    pub(crate) fn add(
        &self,
        address: SocketAddr,
        local: SocketAddr,
        now: Timestamp,
    ) -> Arc<Client> {
        let client = Arc::new(Client {
            id: self.next_id.fetch_add(1, Ordering::Relaxed) + 1,
            address,
            local,
            connected: now,
            last_active: AtomicU64::new(now.as_millis()),
            protocol: AtomicU8::new(2),
            words: Mutex::default(),
            closing: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut connected = self.lock();
        connected.insert(client.id, Arc::clone(&client));
        if self.closing.load(Ordering::Acquire) {
            client.close();
        }
        client
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether the server is shutting down.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// All clients, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// Lets every connection finish what is under way and end.
    pub(crate) fn close_all(&self) {
        let connected = self.lock();
        self.closing.store(true, Ordering::Release);
        connected.values().for_each(|client| client.close());
    }
}
