//! A server, or one of several copies of it, and the connection to it that is good now. Connects by itself, and again
//! when the connection was left, with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::ConnectionInfo;
use tidegate_core::port::{Clock, SharedError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connect::{Live, Timeouts};

/// How often a connection is asked whether its server is still the same. A server that was demoted and promoted again
/// between two commands, while nobody raised a generation, is taken for the same for so long.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// How long to wait for each of the other servers once one was found that takes writes.
const OTHERS: Duration = Duration::from_millis(250);
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
    /// Begins to connect: to the one of the servers that takes writes.
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

/// Tries all servers at once, and takes the one that takes writes. Two that do are two caches, of which each node might
/// take another: none is taken then.
async fn dial(servers: &[ConnectionInfo], dialling: &Dialling) -> Result<Live, SharedError> {
    let mut said = SharedError::configuration("the shared cache has no address");
    let dials = servers
        .iter()
        .map(|server| Live::dial(server, dialling.timeouts, dialling.waits_for_replicas));
    let mut dials: FuturesUnordered<_> = dials.collect();
    let mut found: Option<Live> = None;
    loop {
        let dialled = match &found {
            None => dials.next().await,
            // One that is away must not hold up the others for long.
            Some(_) => tokio::time::timeout(OTHERS, dials.next())
                .await
                .unwrap_or(None),
        };
        match (dialled, found) {
            (None, Some(live)) => return Ok(live),
            (None, None) => return Err(said),
            (Some(Err(error)), was) => {
                said = error;
                found = was;
            }
            (Some(Ok((live, _))), None) => found = Some(live),
            // The same by another address.
            (Some(Ok((live, _))), Some(first)) if live.identity == first.identity => {
                found = Some(first);
            }
            (Some(Ok((live, _))), Some(first)) => {
                return Err(SharedError::unavailable(format_args!(
                    "{} and {} both take writes: one has to be a replica of the other",
                    first.place, live.place
                )));
            }
        }
    }
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
