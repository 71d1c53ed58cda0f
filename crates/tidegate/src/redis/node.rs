//! A server, or one of several copies of it, and the connection to it that is good now. Connects by itself, and again
//! when the connection was left, with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use redis::ConnectionInfo;
use tidegate_core::port::{Clock, SharedError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connect::{Live, Timeouts};

/// How often a connection is asked whether its server is still the same. A server that was demoted and promoted again
/// between two commands, while nobody raised a generation, is taken for the same for so long.
const CHECK_EVERY: Duration = Duration::from_millis(250);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The state of the connection.
#[derive(Clone)]
enum State {
    Connecting,
    Good(Arc<Live>),
    /// The last try failed, and another will follow.
    Away(SharedError),
}

/// A server with its connection. Dropped, it lets go of it.
pub(super) struct Node {
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
    patience: Duration,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// How nodes connect.
#[derive(Clone)]
pub(super) struct Dialling {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeouts: Timeouts,
    pub(super) waits_for_replicas: bool,
}

impl Node {
    /// Begins to connect: to the first of the servers that takes writes.
    pub(super) fn begin(servers: Vec<ConnectionInfo>, dialling: Dialling) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let patience = dialling.timeouts.connect;
        Self {
            state,
            patience,
            task: tokio::spawn(keep(servers, dialling, sender)),
        }
    }

    /// The connection. Waits for one that is being made, if none failed since the last was good.
    pub(super) async fn live(&self) -> Result<Arc<Live>, SharedError> {
        if let State::Good(live) = &*self.state.borrow()
            && !live.is_left()
        {
            return Ok(Arc::clone(live));
        }
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| match state {
            State::Connecting => false,
            State::Good(live) => !live.is_left(),
            State::Away(_) => true,
        });
        match tokio::time::timeout(self.patience, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Good(live) => Ok(Arc::clone(live)),
                State::Away(error) => Err(error.clone()),
                State::Connecting => Err(SharedError::unavailable("it is being connected to")),
            },
            Ok(Err(_)) => Err(SharedError::unavailable("it is closed")),
            Err(_) => Err(SharedError::unavailable("a connection takes too long")),
        }
    }

    /// Lets go of the connection, for good.
    pub(super) fn end(&self) {
        self.task.abort();
    }

    /// The connection, if there is one now.
    pub(super) fn live_now(&self) -> Option<Arc<Live>> {
        match &*self.state.borrow() {
            State::Good(live) if !live.is_left() => Some(Arc::clone(live)),
            _ => None,
        }
    }
}

async fn keep(servers: Vec<ConnectionInfo>, dialling: Dialling, state: watch::Sender<State>) {
    let mut failures = 0u32;
    loop {
        match dial(&servers, &dialling).await {
            Ok(live) => {
                failures = 0;
                let live = Arc::new(live);
                state.send_replace(State::Good(Arc::clone(&live)));
                stay(&live, &*dialling.clock).await;
                state.send_replace(State::Connecting);
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "no connection to the shared cache");
                }
                state.send_replace(State::Away(error));
                failures = failures.saturating_add(1);
                dialling
                    .clock
                    .sleep(pause(failures, dialling.clock.random()))
                    .await;
            }
        }
    }
}

/// Tries one server after the other. Tells what the last had to say.
async fn dial(servers: &[ConnectionInfo], dialling: &Dialling) -> Result<Live, SharedError> {
    let mut said = SharedError::configuration("the shared cache has no address");
    for server in servers {
        match Live::dial(server, dialling.timeouts, dialling.waits_for_replicas).await {
            Ok((live, _)) => return Ok(live),
            Err(error) => said = error,
        }
    }
    Err(said)
}

/// Returns when the connection is not good any more, and left.
async fn stay(live: &Live, clock: &dyn Clock) {
    loop {
        tokio::select! {
            () = live.left() => return,
            () = clock.sleep(CHECK_EVERY) => {}
        }
        if !live.is_the_same().await {
            live.leave();
        }
    }
}

/// Twice as long after every failure, and by chance between half of that and all of it.
fn pause(failures: u32, chance: u64) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let pause = doubled.min(PAUSE_MAX);
    let half = pause / 2;
    let share = u32::try_from(chance % 1024).unwrap_or(0);
    half + half * share / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        for chance in [0, u64::MAX] {
            assert!(pause(1, chance) >= PAUSE_MIN / 2 && pause(1, chance) <= PAUSE_MIN);
            assert!(pause(u32::MAX, chance) >= PAUSE_MAX / 2);
            assert!(pause(u32::MAX, chance) <= PAUSE_MAX);
        }
    }
}
