//! Reading: get, ask, fill.

use bytes::Bytes;
use redis::Value;
use tidegate_core::port::{
    Ask, Asked, Each, Fill, Got, Held, Shard, SharedError, SharedKey, Timestamp,
};

use super::cache::{Inner, flag};
use super::call::{Answer, Call, Word};
use super::error::odd;
use super::layout::{self, Identity, Meta};
use super::names::ShardNames;

/// The longest value that surely fits a string of Redis with all that is in front of it.
const VALUE_BYTES_MAX: usize = (512 << 20) - (1 << 20);

impl Inner {
    /// Entry and generation of its shard, read in one step: one command is one moment.
    fn look(shard: &ShardNames, full: &[u8]) -> redis::Cmd {
        let mut command = redis::Cmd::with_capacity(3, full.len() + shard.meta.len() + 8);
        command.arg("MGET").arg(full).arg(&shard.meta);
        command
    }

    pub(super) async fn get(&self, keys: &[SharedKey]) -> Each<Got> {
        if let [key] = keys
            && let Some(got) = self.get_one(key).await
        {
            return vec![got];
        }
        self.each(
            keys,
            |key| {
                let (shard, name) = self.names.entry(key)?;
                Ok(Call::look(name.shard, Self::look(shard, &name.full)))
            },
            |key, answer| {
                let shard = tidegate_core::port::shard_of(&key.key, self.config.shards);
                read_got(shard, key, answer.value, &answer.identity)
            },
        )
        .await
    }

    /// The way of most reads: one command over the connection there is. Nothing if anything is unusual.
    async fn get_one(&self, key: &SharedKey) -> Option<Result<Got, SharedError>> {
        self.check_open().ok()?;
        let (shard, name) = self.names.entry(key).ok()?;
        let live = self.servers.node(name.shard).ok()?.live_now()?;
        match live.send(&Self::look(shard, &name.full)).await.ok()? {
            value @ Value::Array(_) => Some(read_got(name.shard, key, value, &live.identity)),
            _ => None,
        }
    }

    pub(super) async fn ask(&self, asks: &[Ask], now: Timestamp) -> Each<Asked> {
        let lease = self.config.lease.as_millis().to_string();
        self.each(
            asks,
            |ask| {
                let words = vec![
                    Word::from(ask.token.0),
                    Word::from(now.as_millis()),
                    Word::Text(lease.clone()),
                ];
                self.entry_call(&ask.key, &self.scripts.ask, words)
            },
            |ask, answer| read_asked(&ask.key, answer.value),
        )
        .await
    }

    pub(super) async fn fill(&self, fills: &[Fill]) -> Each<bool> {
        self.each(
            fills,
            |fill| {
                check_value(&fill.key, &fill.held)?;
                let words = vec![
                    Word::from(fill.token.0),
                    Word::from(fill.life.fresh_until.as_millis()),
                    Word::Number(layout::kept_for(fill.life.kept_for)),
                    Word::Bytes(layout::held(&fill.held)),
                ];
                self.entry_call(&fill.key, &self.scripts.fill, words)
            },
            |_, answer| flag(&answer.value),
        )
        .await
    }
}

/// Refuses what no string of Redis can be.
pub(super) fn check_value(key: &SharedKey, held: &Held) -> Result<(), SharedError> {
    let length = held.value.as_ref().map_or(0, |value| value.bytes.len());
    if length > VALUE_BYTES_MAX {
        return Err(SharedError::configuration(format_args!(
            "the value of key {} of class '{}' has {length} bytes; the shared cache takes {VALUE_BYTES_MAX}",
            key.key, key.class
        )));
    }
    Ok(())
}

fn read_got(
    shard: Shard,
    key: &SharedKey,
    answer: Value,
    identity: &Identity,
) -> Result<Got, SharedError> {
    let Value::Array(answer) = answer else {
        return Err(odd("MGET"));
    };
    let [entry, meta] = <[Value; 2]>::try_from(answer).map_err(|_| odd("MGET"))?;
    let meta = match meta {
        Value::BulkString(meta) => Meta::read(&meta).ok_or_else(|| layout::unknown_layout(key))?,
        _ => return Err(SharedError::NeedsGeneration { shard }),
    };
    if meta.identity != *identity {
        return Err(SharedError::NeedsGeneration { shard });
    }
    let Value::BulkString(entry) = entry else {
        return Ok(Got::Nothing);
    };
    let served = layout::served(Bytes::from(entry), key)?;
    match served.generation {
        Some(generation) if generation != meta.generation => Ok(Got::Nothing),
        _ => Ok(served.got),
    }
}

fn read_asked(key: &SharedKey, answer: Value) -> Result<Asked, SharedError> {
    let Value::Array(mut answer) = answer else {
        return Err(odd("a question"));
    };
    let entry = match answer.len() {
        1 => None,
        2 => match answer.pop() {
            Some(Value::BulkString(entry)) => Some(Bytes::from(entry)),
            _ => return Err(odd("a question")),
        },
        _ => return Err(odd("a question")),
    };
    let Some(Value::BulkString(letter)) = answer.pop() else {
        return Err(odd("a question"));
    };
    let got = entry.map(|entry| layout::served(entry, key).map(|served| served.got));
    let held = |got: Option<Got>| match got {
        Some(Got::Clean { held, .. } | Got::Dirty(held) | Got::Parked(held)) => Some(held),
        Some(Got::Nothing) | None => None,
    };
    let got = got.transpose()?;
    match (&letter[..], got) {
        (b"F", Some(got)) => Ok(Asked::Found(got)),
        (b"L", got) => Ok(Asked::Lease(held(got))),
        (b"W", got) => Ok(Asked::Wait(held(got))),
        (b"B", _) => Ok(Asked::Bypass),
        _ => Err(odd("a question")),
    }
}

/// That a script was done is all there is to know.
pub(super) fn done(answer: &Answer) -> Result<(), SharedError> {
    flag(&answer.value).map(drop)
}
