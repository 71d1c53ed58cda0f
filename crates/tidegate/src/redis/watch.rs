//! Being told of changes: a connection of its own to each server, over which it tells every change to a key of ours.
//!
//! What a server has to tell is sent at the end of a turn of its loop, and an answer may overtake it. So the answer to
//! one question proves nothing; but when that to a second one is there, which was sent after the first was answered, all
//! that changed before the first was sent has been told. The second asks who answers: a server that is a replica by
//! then, or was one in between, proves nothing either.
//!
//! A connection that breaks may have hidden a change, and so may the time until there is another: the watcher is told
//! that it is lost at both ends of it, and of no fence in between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tidegate_core::port::{SharedError, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::cache::Inner;
use super::config::place;
use super::connect::{about, connect};
use super::error::{Address, Refusal, lost, odd, refusal};
use super::layout::Identity;
use super::names::Changed;
use super::node::Node;

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// All watches of a cache.
#[derive(Default)]
pub(super) struct Watches {
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// One watch.
struct Watch {
    inner: Arc<Inner>,
    watcher: Arc<dyn Watcher>,
    /// Something is wrong with a connection.
    wake: Arc<Notify>,
    tracked: HashMap<Option<Address>, Tracked>,
}

/// A connection over which changes are told.
struct Tracked {
    connection: MultiplexedConnection,
    identity: Identity,
    place: String,
    is_broken: Arc<AtomicBool>,
}

impl Watches {
    pub(super) async fn begin(
        &self,
        inner: &Arc<Inner>,
        watcher: Arc<dyn Watcher>,
        every: Duration,
    ) -> Result<(), SharedError> {
        inner.check_open()?;
        let mut watch = Watch {
            inner: Arc::clone(inner),
            watcher,
            wake: Arc::default(),
            tracked: HashMap::new(),
        };
        watch.track_all().await?;
        let task = tokio::spawn(watch.keep(every));
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
        Ok(())
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.drain(..) {
            task.abort();
        }
    }
}

impl Watch {
    /// Tells fences as long as all is well, and makes it well again.
    async fn keep(mut self, every: Duration) {
        let mut failures = 0u32;
        // A little sooner, so that it is not later.
        let every = every.mul_f32(0.75).max(Duration::from_millis(1));
        loop {
            let at = self.inner.clock.elapsed();
            if self.is_sure().await {
                self.watcher.fence(at);
                failures = 0;
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.inner.clock.sleep(every) => {}
                }
                continue;
            }
            self.watcher.lost();
            match self.track_all().await {
                // What changed meanwhile was told to nobody.
                Ok(()) => self.watcher.lost(),
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "changes in the shared cache are not told");
                    }
                    failures = failures.saturating_add(1);
                    let pause = PAUSE_MIN.saturating_mul(1 << failures.min(16));
                    self.inner.clock.sleep(pause.min(PAUSE_MAX)).await;
                }
            }
        }
    }

    /// Whether all changes that were made before the call have been told.
    async fn is_sure(&self) -> bool {
        if !self.is_complete() {
            return false;
        }
        let asked = self.tracked.values().map(|tracked| async {
            let is_sure = tracked.is_sure().await;
            if !is_sure {
                tracked.is_broken.store(true, Ordering::Release);
            }
            is_sure
        });
        join_all(asked).await.into_iter().all(|is_sure| is_sure) && self.is_complete()
    }

    /// Whether just the servers that have keys of ours are tracked, and they are the ones that calls go to.
    fn is_complete(&self) -> bool {
        let owners = self.inner.servers.all();
        owners.len() == self.tracked.len()
            && owners.iter().all(|(address, node)| {
                let Some(tracked) = self.tracked.get(address) else {
                    return false;
                };
                let called = node.live_now();
                !tracked.is_broken.load(Ordering::Acquire)
                    && called.is_none_or(|live| live.identity == tracked.identity)
            })
    }

    /// Tracks every server that has keys of ours and is not tracked, and no others.
    async fn track_all(&mut self) -> Result<(), SharedError> {
        let owners = self.inner.servers.all();
        self.tracked.retain(|address, tracked| {
            let owner = owners.iter().find(|(owner, _)| owner == address);
            let is_same = owner.is_some_and(|(_, node)| {
                let called = node.live_now();
                called.is_none_or(|live| live.identity == tracked.identity)
            });
            is_same && !tracked.is_broken.load(Ordering::Acquire)
        });
        for (address, node) in owners {
            if !self.tracked.contains_key(&address) {
                let tracked = self.track(address.as_ref(), &node).await?;
                self.tracked.insert(address, tracked);
            }
        }
        Ok(())
    }

    /// Tracks the server at an address that takes writes, and calls, if any do now.
    async fn track(&self, address: Option<&Address>, node: &Node) -> Result<Tracked, SharedError> {
        let config = &self.inner.config;
        let mut said = SharedError::unavailable("there is no such server");
        for server in self.inner.servers.server(address) {
            let is_broken = Arc::new(AtomicBool::new(false));
            let told = self.told(Arc::clone(&is_broken));
            let place = place(&server);
            let tried = async {
                let timeouts = (config.connect_timeout, config.response_timeout);
                let connection = connect(&server, timeouts.0, timeouts.1, Some(told)).await?;
                let about = about(&connection, &place).await?;
                if !about.is_primary || about.is_loading {
                    return Err(SharedError::unavailable(format_args!(
                        "{place} does not take writes"
                    )));
                }
                if let Some(called) = node.live_now()
                    && called.identity != about.identity
                {
                    if called.place != place {
                        return Err(SharedError::unavailable(format_args!(
                            "{place} is not the server that is used"
                        )));
                    }
                    // It became another, which calls have not found out yet.
                    called.leave();
                }
                let mut command = redis::cmd("CLIENT");
                command.arg("TRACKING").arg("ON").arg("BCAST");
                command.arg("PREFIX").arg(self.inner.names.tracked());
                ask(&connection, &command, &place).await?;
                Ok(Tracked {
                    connection,
                    identity: about.identity,
                    place: place.clone(),
                    is_broken,
                })
            };
            match tried.await {
                Ok(tracked) => return Ok(tracked),
                Err(error) => said = error,
            }
        }
        Err(said)
    }

    /// What is done with what a server tells, in the order told and before any later answer is read.
    fn told(&self, is_broken: Arc<AtomicBool>) -> super::connect::Told {
        let (inner, watcher) = (Arc::downgrade(&self.inner), Arc::clone(&self.watcher));
        let wake = Arc::clone(&self.wake);
        Box::new(move |push: PushInfo| match push.kind {
            PushKind::Invalidate => match push.data.first() {
                Some(Value::Array(keys)) => {
                    let Some(inner) = inner.upgrade() else {
                        return;
                    };
                    for key in keys {
                        let Value::BulkString(key) = key else {
                            watcher.lost();
                            continue;
                        };
                        match inner.names.read(key) {
                            Changed::Entry(key) => watcher.changed(&key),
                            // All entries of the shard may be absent now, or it is another's.
                            Changed::Meta => watcher.lost(),
                            Changed::Other => {}
                        }
                    }
                }
                // It was emptied.
                _ => watcher.lost(),
            },
            PushKind::Disconnection => {
                if !is_broken.swap(true, Ordering::AcqRel) {
                    watcher.lost();
                }
                wake.notify_one();
            }
            _ => {}
        })
    }
}

impl Tracked {
    /// Asks twice, the second time who answers.
    async fn is_sure(&self) -> bool {
        let first = ask(&self.connection, &redis::cmd("PING"), &self.place).await;
        if first.is_err() {
            return false;
        }
        let second = about(&self.connection, &self.place).await;
        second.is_ok_and(|about| about.is_primary && about.identity == self.identity)
    }
}

async fn ask(
    connection: &MultiplexedConnection,
    command: &redis::Cmd,
    place: &str,
) -> Result<(), SharedError> {
    let answer = connection.clone().send_packed_command(command).await;
    match answer.map_err(|e| lost(&e, place))? {
        Value::ServerError(error) => Err(match refusal(&error, "") {
            Refusal::Leave(error) | Refusal::Failed(error) => error,
            _ => odd("CLIENT TRACKING"),
        }),
        _ => Ok(()),
    }
}
