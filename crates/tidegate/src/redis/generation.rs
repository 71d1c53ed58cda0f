//! Generations of shards.

use redis::Value;
use tidegate_core::port::{Each, Shard, ShardState, SharedError};

use super::cache::{Inner, flag};
use super::call::{Answer, Call, Word};
use super::error::odd;
use super::layout::Meta;
use super::writes::key_of;

impl Inner {
    pub(super) async fn shard_states(&self, shards: &[Shard]) -> Each<ShardState> {
        self.each(
            shards,
            |shard| {
                let mut command = redis::cmd("GET");
                command.arg(&self.names.shard(*shard)?.meta);
                Ok(Call::look(*shard, command))
            },
            |shard, answer| {
                let Answer { value, identity } = answer;
                state(*shard, value, &identity)
            },
        )
        .await
    }

    pub(super) async fn open_generation(
        &self,
        shards: &[Shard],
        generation: u64,
    ) -> Each<ShardState> {
        // A generation is raised for the server as it is now, not as it was when it was connected to.
        self.refresh_identities(shards).await;
        self.each(
            shards,
            |shard| {
                let keys = vec![key_of(&self.names.shard(*shard)?.meta)];
                let words = vec![Word::from(generation)];
                Ok(Call::script(
                    *shard,
                    &self.scripts.open_generation,
                    keys,
                    words,
                ))
            },
            |shard, answer| {
                let Value::Array(mut meta) = answer.value else {
                    return Err(odd("a generation"));
                };
                state(*shard, meta.pop().unwrap_or(Value::Nil), &answer.identity)
            },
        )
        .await
    }

    pub(super) async fn open(&self, shards: &[Shard], generation: u64) -> Each<bool> {
        self.each(
            shards,
            |shard| {
                let keys = vec![key_of(&self.names.shard(*shard)?.meta)];
                let words = vec![Word::from(generation)];
                Ok(Call::script(*shard, &self.scripts.open, keys, words))
            },
            |_, answer| flag(&answer.value),
        )
        .await
    }

    /// Leaves connections whose server became another.
    async fn refresh_identities(&self, shards: &[Shard]) {
        let mut seen = Vec::new();
        for shard in shards {
            let Ok(node) = self.servers.node(*shard) else {
                continue;
            };
            let Some(live) = node.live_now() else {
                continue;
            };
            if seen
                .iter()
                .any(|other| std::sync::Arc::ptr_eq(other, &live))
            {
                continue;
            }
            if !live.is_the_same().await {
                live.leave();
            }
            seen.push(live);
        }
    }

    pub(super) async fn ping(&self) -> Result<(), SharedError> {
        self.check_open()?;
        for (_, node) in self.servers.all() {
            let live = node.live().await?;
            if !live.is_the_same().await {
                live.leave();
                return Err(SharedError::unavailable("the server became another"));
            }
        }
        Ok(())
    }
}

fn state(
    shard: Shard,
    meta: Value,
    identity: &super::layout::Identity,
) -> Result<ShardState, SharedError> {
    let meta = match meta {
        Value::Nil => {
            return Ok(ShardState {
                shard,
                generation: 0,
                is_current: false,
                is_open: false,
            });
        }
        Value::BulkString(meta) => meta,
        _ => return Err(odd("a generation")),
    };
    let meta = Meta::read(&meta).ok_or_else(|| {
        SharedError::configuration(format_args!(
            "the shared cache has the generation of shard {} in a form this version of tidegate does not know: let all \
             nodes run one version, or give them another prefix",
            shard.0
        ))
    })?;
    let is_current = meta.identity == *identity;
    Ok(ShardState {
        shard,
        generation: meta.generation,
        is_current,
        is_open: meta.is_open && is_current,
    })
}
