//! Sending: everything that goes to one server as one pipeline, each answer by itself.
//!
//! A command that the server refused before it did anything (it has moved, its script is not known, a slot is on its
//! way) is sent again. One whose answer was lost is not, unless it only looks: it may have been done.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};
use tidegate_core::port::{Each, Shard, SharedError};

use super::cache::Inner;
use super::connect::Live;
use super::error::{Address, Refusal, odd, refusal};
use super::layout::Identity;
use super::node::Node;
use super::route::Replicas;
use super::script::Script;

/// How long to wait before a slot that is on its way is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(5);
/// How often a command is sent anew because of what the server said, at most: a slot that two servers each believe
/// at the other would go on for ever.
const REDIRECTS_MAX: u32 = 32;

/// A command for one shard.
pub(super) struct Call<'a> {
    pub(super) shard: Shard,
    what: What<'a>,
    only_looks: bool,
}

enum What<'a> {
    /// The identity of the server goes in front of the words.
    Script {
        script: &'a Script,
        keys: Vec<Cow<'a, [u8]>>,
        words: Vec<Word<'a>>,
    },
    Plain(Cmd),
}

/// An argument of a script.
pub(super) enum Word<'a> {
    Slice(&'a [u8]),
    Number([u8; 8]),
    Text(String),
    Bytes(bytes::Bytes),
}

impl Word<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Number(number) => number,
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<u64> for Word<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number.to_be_bytes())
    }
}

/// What a call was answered, and by whom.
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) identity: Identity,
}

impl<'a> Call<'a> {
    /// A script and its keys and words.
    pub(super) fn script(
        shard: Shard,
        script: &'a Script,
        keys: Vec<Cow<'a, [u8]>>,
        words: Vec<Word<'a>>,
    ) -> Self {
        Self {
            shard,
            what: What::Script {
                script,
                keys,
                words,
            },
            only_looks: false,
        }
    }

    /// A command that changes nothing.
    pub(super) fn look(shard: Shard, command: Cmd) -> Self {
        Self {
            shard,
            what: What::Plain(command),
            only_looks: true,
        }
    }

    /// It changes nothing, and may be sent again.
    pub(super) fn only_looks(mut self) -> Self {
        self.only_looks = true;
        self
    }

    fn command(&self, identity: &Identity) -> Cmd {
        match &self.what {
            What::Plain(command) => command.clone(),
            What::Script {
                script,
                keys,
                words,
            } => {
                let length = |slice: &[u8]| slice.len();
                let keys_length: usize = keys.iter().map(|key| key.len()).sum();
                let words_length: usize = words.iter().map(|word| length(word.as_slice())).sum();
                let mut command = Cmd::with_capacity(
                    4 + keys.len() + words.len(),
                    keys_length + words_length + 80,
                );
                command.arg("EVALSHA").arg(&script.hash).arg(keys.len());
                for key in keys {
                    command.arg(&**key);
                }
                command.arg(identity);
                for word in words {
                    command.arg(word.as_slice());
                }
                command
            }
        }
    }
}

/// Where a call goes next.
enum Next {
    /// To whoever has its shard.
    Owner,
    /// To this address, once, told that it is asked for.
    Asking(Address),
}

/// Some calls, by their places among all.
type Group = Vec<(usize, Next)>;

/// How the calls to one server went.
enum Sent {
    Answered {
        live: Arc<Live>,
        values: Vec<Value>,
    },
    /// Nothing was sent.
    Unsent(SharedError),
    /// Something may have been done.
    Lost(SharedError),
}

impl Inner {
    /// Whether what began at this moment took as long as an answer may.
    pub(super) fn is_late(&self, began: Duration) -> bool {
        self.clock.elapsed().saturating_sub(began) >= self.config.response_timeout
    }

    /// Sends all calls; each is answered by itself.
    pub(super) async fn call(&self, calls: &[Call<'_>], waits_for_replicas: bool) -> Each<Answer> {
        let mut answers: Vec<Option<Result<Answer, SharedError>>> = Vec::new();
        answers.resize_with(calls.len(), || None);
        let mut waiting: Group = (0..calls.len()).map(|at| (at, Next::Owner)).collect();
        let began = self.clock.elapsed();
        let mut round = 0;
        while !waiting.is_empty() {
            let mut again = Vec::new();
            let mut pause = false;
            for (group, sent) in self
                .send_round(calls, waiting, waits_for_replicas, &mut answers)
                .await
            {
                let (live, values) = match sent {
                    Sent::Answered { live, values } => (live, values),
                    Sent::Unsent(error) => {
                        self.servers.hint();
                        for (at, _) in group {
                            answers[at] = Some(Err(error.clone()));
                        }
                        continue;
                    }
                    Sent::Lost(error) => {
                        self.servers.hint();
                        let may_look_again = round == 0 && !self.is_late(began);
                        for (at, _) in group {
                            if calls[at].only_looks && may_look_again {
                                again.push((at, Next::Owner));
                            } else {
                                answers[at] = Some(Err(error.clone()));
                            }
                        }
                        continue;
                    }
                };
                let mut loaded: Vec<&str> = Vec::new();
                for ((at, _), value) in group.into_iter().zip(values) {
                    let Value::ServerError(error) = &value else {
                        let identity = live.identity;
                        answers[at] = Some(Ok(Answer { value, identity }));
                        continue;
                    };
                    match refusal(error, &live.host) {
                        Refusal::NoScript => {
                            if let What::Script { script, .. } = &calls[at].what
                                && !loaded.contains(&script.hash.as_str())
                            {
                                loaded.push(&script.hash);
                                if let Err(error) = load(&live, script).await {
                                    answers[at] = Some(Err(error));
                                    continue;
                                }
                            }
                            again.push((at, Next::Owner));
                        }
                        Refusal::Moved(address) => {
                            self.servers.moved(calls[at].shard, address);
                            again.push((at, Next::Owner));
                        }
                        Refusal::Ask(address) => again.push((at, Next::Asking(address))),
                        Refusal::TryAgain => {
                            pause = true;
                            again.push((at, Next::Owner));
                        }
                        Refusal::Leave(error) => {
                            live.leave();
                            self.servers.hint();
                            answers[at] = Some(Err(error));
                        }
                        Refusal::Failed(error) => answers[at] = Some(Err(error)),
                    }
                }
            }
            round += 1;
            if self.is_late(began) || (round > REDIRECTS_MAX && !pause) {
                for (at, _) in again.drain(..) {
                    answers[at] = Some(Err(SharedError::unavailable(format_args!(
                        "shard {} is on its way to another server",
                        calls[at].shard.0
                    ))));
                }
            }
            if pause && !again.is_empty() {
                self.clock.sleep(TRY_AGAIN).await;
            }
            waiting = again;
        }
        let missing = || Err(odd("fewer things than were asked"));
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(missing))
            .collect()
    }

    /// Sends each call once, all of a server together.
    async fn send_round(
        &self,
        calls: &[Call<'_>],
        waiting: Group,
        waits_for_replicas: bool,
        answers: &mut [Option<Result<Answer, SharedError>>],
    ) -> Vec<(Group, Sent)> {
        let mut groups: Vec<(Arc<Node>, Group)> = Vec::new();
        for (at, next) in waiting {
            let node = match &next {
                Next::Owner => self.servers.node(calls[at].shard),
                Next::Asking(address) => Ok(self.servers.node_asked(address)),
            };
            match node {
                Ok(node) => {
                    // The servers are few.
                    let known = groups.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &node));
                    match known {
                        Some((_, group)) => group.push((at, next)),
                        None => groups.push((node, vec![(at, next)])),
                    }
                }
                Err(error) => answers[at] = Some(Err(error)),
            }
        }
        let sends = groups.into_iter().map(|(node, group)| async move {
            let sent = self
                .send_group(calls, &node, &group, waits_for_replicas)
                .await;
            (group, sent)
        });
        join_all(sends).await
    }

    async fn send_group(
        &self,
        calls: &[Call<'_>],
        node: &Node,
        group: &[(usize, Next)],
        waits_for_replicas: bool,
    ) -> Sent {
        let live = match node.live().await {
            Ok(live) => live,
            Err(error) => return Sent::Unsent(error),
        };
        let mut commands = Pipeline::with_capacity(group.len());
        // Whether each answer belongs to a call, or to what was sent for it.
        let mut is_of_call = Vec::with_capacity(group.len());
        for (at, next) in group {
            if matches!(next, Next::Asking(_)) {
                commands.cmd("ASKING");
                is_of_call.push(false);
            }
            commands.add_command(calls[*at].command(&live.identity));
            is_of_call.push(true);
        }
        if waits_for_replicas {
            return self.send_and_wait(live, commands, &is_of_call).await;
        }
        // A replica refuses scripts, but not plain looks.
        let looks = group
            .iter()
            .any(|(at, _)| matches!(calls[*at].what, What::Plain(_)));
        let shows_role = looks && self.servers.replicas() == Replicas::Answer;
        if shows_role {
            // It answers at once, and a replica with an error.
            commands.cmd("WAIT").arg(0).arg(0);
            is_of_call.push(false);
        }
        match live.send_all(&commands).await {
            Err(error) => Sent::Lost(error),
            Ok(values) if shows_role && !matches!(values.last(), Some(Value::Int(_))) => {
                live.leave();
                Sent::Lost(no_role(values.last(), &live.host))
            }
            Ok(values) => Sent::Answered {
                live,
                values: pick(values, &is_of_call),
            },
        }
    }

    /// Sends, and waits until enough replicas have it.
    async fn send_and_wait(
        &self,
        live: Arc<Live>,
        mut commands: Pipeline,
        is_of_call: &[bool],
    ) -> Sent {
        let millis = self.config.replica_timeout.as_millis();
        commands
            .cmd("WAIT")
            .arg(self.config.replicas)
            .arg(u64::try_from(millis).unwrap_or(u64::MAX));
        let mut values = match live.send_and_wait(&commands).await {
            Ok(values) => values,
            Err(error) => return Sent::Lost(error),
        };
        let replicas = match values.pop() {
            Some(Value::Int(replicas)) => replicas,
            Some(Value::ServerError(error)) => {
                return match refusal(&error, &live.host) {
                    Refusal::Leave(error) | Refusal::Failed(error) => Sent::Lost(error),
                    _ => Sent::Lost(odd("WAIT")),
                };
            }
            _ => return Sent::Lost(odd("WAIT")),
        };
        if replicas < i64::from(self.config.replicas) {
            // What was made is answered with a version, what was refused with a letter or an error.
            let is_nothing_done = !values.iter().any(|value| matches!(value, Value::Array(_)));
            if !is_nothing_done {
                return Sent::Lost(SharedError::unavailable(format_args!(
                    "{replicas} of {} replicas have the write",
                    self.config.replicas
                )));
            }
        }
        Sent::Answered {
            live,
            values: pick(values, is_of_call),
        }
    }
}

/// Why a server does not say that it is a primary: it is none, or the user may not ask.
fn no_role(answer: Option<&Value>, host: &str) -> SharedError {
    if let Some(Value::ServerError(error)) = answer
        && let Refusal::Failed(error @ SharedError::Configuration { .. }) = refusal(error, host)
    {
        return error;
    }
    SharedError::unavailable("the server is a replica")
}

/// The answers that belong to calls.
fn pick(values: Vec<Value>, is_of_call: &[bool]) -> Vec<Value> {
    let values = values.into_iter().zip(is_of_call);
    values
        .filter_map(|(value, is_of_call)| is_of_call.then_some(value))
        .collect()
}

/// Tells a server the text of a script.
async fn load(live: &Live, script: &Script) -> Result<(), SharedError> {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(script.text);
    match live.send(&command).await? {
        Value::ServerError(error) => Err(match refusal(&error, &live.host) {
            Refusal::Leave(error) | Refusal::Failed(error) => error,
            _ => odd("SCRIPT LOAD"),
        }),
        _ => Ok(()),
    }
}
