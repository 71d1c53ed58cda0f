//! A wire between store and server whose faults can be set.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

/// What the wire between store and server does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Wire {
    /// Passes everything.
    Fine,
    /// Loses the server's answer to the next commit, with the connection; then `after`.
    LosesAnswer,
    /// Loses the next commit itself, with the connection; then `after`.
    LosesCommit,
    /// Takes everything and answers nothing.
    Silent,
    /// Ends connections as they come.
    Cut,
}

/// A wire whose faults can be set.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    wire: Arc<AtomicU8>,
    after: Arc<AtomicU8>,
}

impl Proxy {
    /// To the port of a server; `trigger` stands in what is sent to commit a batch.
    pub(crate) fn start(server: u16, trigger: &'static [u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            wire: Arc::default(),
            after: Arc::default(),
        };
        let (wire, after) = (Arc::clone(&proxy.wire), Arc::clone(&proxy.after));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if wire.load(Ordering::SeqCst) == Wire::Cut as u8 {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let lost = Arc::new(OnceLock::new());
                for (from, to, upward) in [
                    (
                        client.try_clone().unwrap(),
                        server.try_clone().unwrap(),
                        true,
                    ),
                    (server, client, false),
                ] {
                    let (wire, after, lost) = (wire.clone(), after.clone(), Arc::clone(&lost));
                    std::thread::spawn(move || {
                        Self::pump(from, to, upward.then_some(trigger), &wire, &after, &lost);
                    });
                }
            }
        });
        proxy
    }

    /// Changes what the wire does, and what it does after the next fault.
    pub(crate) fn set(&self, wire: Wire, after: Wire) {
        self.after.store(after as u8, Ordering::SeqCst);
        self.wire.store(wire as u8, Ordering::SeqCst);
    }

    fn pump(
        mut from: TcpStream,
        mut to: TcpStream,
        trigger: Option<&[u8]>,
        wire: &AtomicU8,
        after: &AtomicU8,
        lost: &OnceLock<()>,
    ) {
        let mut bytes = [0; 1 << 16];
        loop {
            let count = from.read(&mut bytes).unwrap_or(0);
            let now = wire.load(Ordering::SeqCst);
            if now == Wire::Silent as u8 {
                if count == 0 {
                    break;
                }
                continue;
            }
            let commit = trigger.is_some_and(|trigger| {
                bytes[..count]
                    .windows(trigger.len())
                    .any(|part| part == trigger)
            });
            if commit && now == Wire::LosesCommit as u8 {
                wire.store(after.load(Ordering::SeqCst), Ordering::SeqCst);
                break;
            }
            if commit && now == Wire::LosesAnswer as u8 {
                wire.store(after.load(Ordering::SeqCst), Ordering::SeqCst);
                lost.set(()).unwrap();
            } else if lost.get().is_some() && trigger.is_none() {
                break;
            }
            if count == 0 || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
