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

/// The longest value that surely fits a string of Redis with all that is in front of it.
const VALUE_BYTES_MAX: usize = (512 << 20) - (1 << 20);

impl Inner {
    pub(super) async fn get(&self, keys: &[SharedKey]) -> Each<Got> {
        if let [key] = keys
            && let Some(got) = self.get_one(key).await
        {
            return vec![got];
        }
        // In a box, so that the usual way stays small.
        Box::pin(self.get_many(keys)).await
    }

    /// The way of most reads, over the connection there is: entry, then generation. An entry that is of a generation
    /// which is the shard's after that was its own all the time. GETEX changes nothing as it is used here, but a replica
    /// refuses it, and so does a primary that has too few replicas (`min-replicas-to-write`). Nothing if anything is
    /// unusual.
    async fn get_one(&self, key: &SharedKey) -> Option<Result<Got, SharedError>> {
        let live = self.servers.only_live()?;
        self.check_open().ok()?;
        let (shard, name) = self.names.entry(key).ok()?;
        let mut commands = redis::Pipeline::with_capacity(2);
        let mut get = redis::Cmd::with_capacity(2, name.full.len() + 3);
        get.arg("GET").arg(&name.full);
        let mut check = redis::Cmd::with_capacity(2, shard.meta.len() + 5);
        check.arg("GETEX").arg(&shard.meta);
        commands.add_command(get).add_command(check);
        let began = self.clock.elapsed();
        let answers = match live.send_all(&commands).await {
            Ok(answers) => answers,
            // It looked long enough.
            Err(error) if self.is_late(began) => return Some(Err(error)),
            Err(_) => return None,
        };
        let [entry, meta] = <[Value; 2]>::try_from(answers).ok()?;
        let is_usual = |value: &Value| matches!(value, Value::BulkString(_) | Value::Nil);
        if !is_usual(&entry) || !is_usual(&meta) {
            return None;
        }
        Some(read_got(name.shard, key, entry, meta, &live.identity))
    }

    /// Any number of keys, wherever they are: entry and generation by one command each.
    async fn get_many(&self, keys: &[SharedKey]) -> Each<Got> {
        self.each(
            keys,
            |key| {
                let (shard, name) = self.names.entry(key)?;
                let mut command =
                    redis::Cmd::with_capacity(3, name.full.len() + shard.meta.len() + 4);
                command.arg("MGET").arg(&name.full).arg(&shard.meta);
                Ok(Call::look(name.shard, command))
            },
            |key, answer| {
                let shard = tidegate_core::port::shard_of(&key.key, self.config.shards);
                let Value::Array(both) = answer.value else {
                    return Err(odd("MGET"));
                };
                let [entry, meta] = <[Value; 2]>::try_from(both).map_err(|_| odd("MGET"))?;
                read_got(shard, key, entry, meta, &answer.identity)
            },
        )
        .await
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
    entry: Value,
    meta: Value,
    identity: &Identity,
) -> Result<Got, SharedError> {
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
