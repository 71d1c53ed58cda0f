//! `tidegate serve`: open, listen, serve, and shut down in order.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::{FlushReport, Gate};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin;
use crate::cli::Serve;
use crate::config::{self, Config, Overrides, SharedConfig};
use crate::console;
use crate::exit_codes::Exit;
use crate::left::Left;
use crate::listener::Listener;
use crate::open::open;
use crate::server::Server;
use crate::welcome;

pub(crate) fn run(arguments: &Serve) -> io::Result<Exit> {
    let overrides = Overrides {
        listen: arguments.listen,
        data_dir: arguments.data_dir.clone(),
    };
    let config = match config::load(arguments.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(problems) => {
            console::say(problems.to_string());
            return Ok(Exit::Config);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let exit = runtime.block_on(serve(config, arguments.config.as_deref()));
    // A store that hangs must not keep the process: everything that matters was waited for.
    runtime.shutdown_background();
    exit
}

async fn serve(config: Config, file: Option<&Path>) -> io::Result<Exit> {
    let mut signals = Signals::new()?;
    // Before the store is opened: a second server on the same address must not touch the first one's files.
    let listener = match TcpListener::bind(config.server.listen).await {
        Ok(listener) => listener,
        Err(error) => {
            return Ok(refuse_address(
                config.server.listen,
                "--listen or server.listen",
                &error,
            ));
        }
    };
    let address = listener.local_addr()?;
    let admin = match config.server.admin {
        None => None,
        Some(at) => match TcpListener::bind(at).await {
            Ok(listener) => Some(listener),
            Err(error) => return Ok(refuse_address(at, "server.admin", &error)),
        },
    };
    let opened = tokio::select! {
        opened = open(&config) => opened,
        () = signals.next() => {
            // Nobody has looked into the journal yet, so nobody knows whether the store has everything.
            console::say(format!(
                "tidegate ended by a signal before store and journal were open; what an earlier run left in the journal {} \
                 is still there",
                config.journal_path.display()
            ));
            return Ok(Exit::Open);
        }
    };
    let gate = match opened {
        Ok(gate) => gate,
        Err(message) => {
            console::say(format!("tidegate cannot start: {message}"));
            return Ok(Exit::Open);
        }
    };
    let store = config.store_url.to_string();
    let shared = config.shared.as_ref().map(SharedConfig::place);
    let server = Server::new(gate, config.server.clone(), address, store, shared);
    let server = Arc::new(server);
    let admin_address = match &admin {
        Some(listener) => Some(listener.local_addr()?),
        None => None,
    };
    // Ends with this function: metrics are for watching the drain too.
    let mut tasks = JoinSet::new();
    if let Some(listener) = admin {
        tasks.spawn(admin::serve(listener, Arc::clone(&server)));
    }
    welcome::print(&config, address, admin_address, file)?;
    let mut listener = Listener::new(listener, Arc::clone(&server));
    tokio::select! {
        () = listener.run() => {}
        () = signals.next() => {}
    }
    tracing::info!("shutting down; a second signal ends at once");
    tokio::select! {
        report = shut_down(listener, &server) => Ok(tell(report, &server.gate, &config)),
        () = signals.again() => {
            console::say(
                "tidegate ended by a second signal; what was not in the store and is journalled is in the journal",
            );
            Ok(Exit::Forced)
        }
    }
}

/// Requests under way first, which get half of the time, then everything dirty, then journal and store. A client that
/// does not take its answers must not cost others their writes.
async fn shut_down(listener: Listener, server: &Server) -> tidegate::Result<FlushReport> {
    let timeout = server.config.shutdown_timeout;
    let start = Instant::now();
    listener.close(start + timeout / 2).await;
    let left = timeout.saturating_sub(start.elapsed());
    let deadline = server.config.drain_timeout.unwrap_or(left);
    server.gate.drain(deadline).await
}

/// One line that says what is left and where it is, and the code that says the worst of it.
fn tell(report: tidegate::Result<FlushReport>, gate: &Gate, config: &Config) -> Exit {
    let report = match report {
        Ok(report) if report.is_complete() => return Exit::Success,
        Ok(report) => report,
        Err(error) => {
            console::say(format!("tidegate could not drain: {error}"));
            return Exit::Left;
        }
    };
    let stats = gate.stats();
    let left = Left::of(&report, &stats, gate.classes());
    console::say(left.line(config));
    if left.lost.entries > 0 {
        Exit::Lost
    } else {
        Exit::Left
    }
}

fn refuse_address(address: SocketAddr, option: &str, error: &io::Error) -> Exit {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there already".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "the system does not permit it".to_owned(),
        _ => error.to_string(),
    };
    console::say(format!(
        "tidegate cannot listen on {address}: {why}; choose another address with {option}"
    ));
    Exit::Listen
}

/// A signal that comes so soon after the first is the same wish said twice: a terminal and a supervisor both pass
/// Ctrl-C on, and `timeout` signals its child and then the whole group.
const ECHO: Duration = Duration::from_secs(1);

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns at the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Returns at the first one that is no echo of the last.
    async fn again(&mut self) {
        let first = Instant::now();
        loop {
            self.next().await;
            if first.elapsed() >= ECHO {
                return;
            }
        }
    }
}
