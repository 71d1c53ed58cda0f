//! Write-back: entries that the store does not have.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tidegate_core::Version;
use tidegate_core::port::{
    Claimed, ENTRY_OVERHEAD_BYTES, Each, Expected, Flushed, Held, Put, PutOutcome, Replay, Shard,
    ShardDirty, SharedError, SharedKey, Timestamp,
};

use super::cache::{Inner, flag};
use super::call::{Call, Word};
use super::error::odd;
use super::layout::{self, DirtyEntry};
use super::names::Names;
use super::reads::check_value;
use super::script::Script;
use super::writes::{key_of, limit_word, members};

impl Inner {
    /// A script over an entry and all that is kept of the dirty ones of its shard.
    fn dirty_call<'a>(
        &'a self,
        key: &SharedKey,
        script: &'a Script,
        more: Vec<Word<'a>>,
    ) -> Result<Call<'a>, SharedError> {
        let (shard, name) = self.names.entry(key)?;
        let beside = u64::try_from(key.key.len())
            .unwrap_or(u64::MAX)
            .saturating_add(ENTRY_OVERHEAD_BYTES);
        let mut words = vec![
            Word::Bytes(name.short().to_vec().into()),
            Word::Text(beside.to_string()),
        ];
        words.extend(more);
        let keys = vec![
            key_of(&shard.meta),
            name.full.into(),
            key_of(&shard.dirty),
            key_of(&shard.parked),
            key_of(&shard.claims),
            key_of(&shard.figures),
        ];
        Ok(Call::script(name.shard, script, keys, words))
    }

    pub(super) async fn put(&self, puts: &[Put]) -> Each<PutOutcome> {
        self.each_waiting(
            puts,
            self.config.replicas > 0,
            |put| {
                let held = Held {
                    version: Version::NONE,
                    value: put.value.clone(),
                };
                check_value(&put.key, &held)?;
                let words = vec![
                    match put.expected {
                        Expected::Any => Word::Slice(b""),
                        Expected::Version(version) => Word::from(version.raw()),
                    },
                    Word::from(put.now.as_millis()),
                    Word::Text(put.shard_bytes_max.to_string()),
                    Word::Bytes(layout::content(put.value.as_ref())),
                ];
                self.dirty_call(&put.key, &self.scripts.put, words)
            },
            |_, answer| read_put(answer.value),
        )
        .await
    }

    pub(super) async fn claim(
        &self,
        shard: Shard,
        limit: usize,
        now: Timestamp,
        claim_for: Duration,
    ) -> Result<Vec<Claimed>, SharedError> {
        let names = self.names.shard(shard)?;
        let words = vec![Word::Text(now.as_millis().to_string()), limit_word(limit)];
        let keys = vec![
            key_of(&names.meta),
            key_of(&names.dirty),
            key_of(&names.claims),
        ];
        let due = Call::script(shard, &self.scripts.due, keys, words).only_looks();
        let due = self.keys(due).await?;
        let end = now.after(claim_for).as_millis();
        let claimed = self
            .each(
                &due,
                |key| {
                    let words = vec![
                        Word::Text(now.as_millis().to_string()),
                        Word::Text(end.to_string()),
                    ];
                    self.dirty_call(key, &self.scripts.claim, words)
                },
                |key, answer| Ok(read_entry(key, answer.value)?.map(|entry| tell(key, entry))),
            )
            .await;
        // One that cannot be read, or whose answer was lost, does not hold up the others.
        let mut found = Vec::with_capacity(claimed.len());
        let mut failure = None;
        for claimed in claimed {
            match claimed {
                Ok(claimed) => found.extend(claimed),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if found.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "some entries that are to be flushed could not be claimed");
                Ok(found)
            }
            None => Ok(found),
        }
    }

    pub(super) async fn settle(&self, flushed: &[(SharedKey, Version, Flushed)]) -> Each<bool> {
        self.each(
            flushed,
            |(key, version, flushed)| {
                let mut words = vec![Word::from(version.raw())];
                match flushed {
                    Flushed::Stored(life) => words.extend([
                        Word::Slice(b"S"),
                        Word::from(life.fresh_until.as_millis()),
                        Word::Number(layout::kept_for(life.kept_for)),
                    ]),
                    Flushed::Again(at) => {
                        words.extend([Word::Slice(b"A"), Word::Text(at.as_millis().to_string())]);
                    }
                    Flushed::Over(row) => words.extend([Word::Slice(b"O"), Word::from(row.raw())]),
                    Flushed::Parked(said) => {
                        words.extend([Word::Slice(b"P"), Word::Slice(said.as_bytes())]);
                    }
                    Flushed::Dropped => words.push(Word::Slice(b"D")),
                }
                self.dirty_call(key, &self.scripts.settle, words)
            },
            |_, answer| flag(&answer.value),
        )
        .await
    }

    pub(super) async fn parked(
        &self,
        shard: Shard,
        limit: usize,
    ) -> Result<Vec<(Claimed, Arc<str>)>, SharedError> {
        let names = self.names.shard(shard)?;
        let keys = vec![key_of(&names.meta), key_of(&names.parked)];
        let words = vec![limit_word(limit)];
        let call = Call::script(shard, &self.scripts.parked, keys, words).only_looks();
        let parked = self.keys(call).await?;
        let looked = self
            .each(
                &parked,
                |key| {
                    Ok(self
                        .entry_call(key, &self.scripts.look, Vec::new())?
                        .only_looks())
                },
                |key, answer| {
                    let Value::BulkString(entry) = answer.value else {
                        return Ok(None);
                    };
                    let Some(mut entry) = layout::dirty(Bytes::from(entry)) else {
                        return Ok(None);
                    };
                    let said = entry.said.take();
                    Ok(said.map(|said| (tell(key, entry), said)))
                },
            )
            .await;
        let looked: Vec<_> = looked.into_iter().collect::<Result<_, _>>()?;
        Ok(looked.into_iter().flatten().collect())
    }

    pub(super) async fn unpark(
        &self,
        parked: &[(SharedKey, Version)],
        now: Timestamp,
    ) -> Each<bool> {
        self.each(
            parked,
            |(key, version)| {
                let words = vec![Word::from(version.raw()), Word::from(now.as_millis())];
                self.dirty_call(key, &self.scripts.unpark, words)
            },
            |_, answer| flag(&answer.value),
        )
        .await
    }

    pub(super) async fn replay(&self, replays: &[Replay]) -> Each<bool> {
        self.each_waiting(
            replays,
            self.config.replicas > 0,
            |replay| {
                check_value(&replay.key, &replay.held)?;
                let words = vec![
                    match replay.base {
                        None => Word::Slice(b""),
                        Some(base) => Word::from(base.raw()),
                    },
                    Word::from(replay.now.as_millis()),
                    Word::Bytes(layout::held(&replay.held)),
                ];
                self.dirty_call(&replay.key, &self.scripts.replay, words)
            },
            |_, answer| match answer.value {
                Value::BulkString(letter) if letter == b"B" => Err(SharedError::unavailable(
                    "a key to be replayed is in quarantine",
                )),
                Value::Array(_) => Ok(true),
                value => flag(&value),
            },
        )
        .await
    }

    pub(super) async fn dirty(&self, shards: &[Shard]) -> Each<ShardDirty> {
        self.each(
            shards,
            |shard| {
                let names = self.names.shard(*shard)?;
                let keys = vec![
                    key_of(&names.meta),
                    key_of(&names.dirty),
                    key_of(&names.parked),
                    key_of(&names.figures),
                ];
                Ok(Call::script(*shard, &self.scripts.figures, keys, Vec::new()).only_looks())
            },
            |_, answer| read_figures(answer.value),
        )
        .await
    }

    /// The keys whose names a script answers.
    async fn keys(&self, call: Call<'_>) -> Result<Vec<SharedKey>, SharedError> {
        let names = members(self.one(call).await?.value)?;
        let read = |name: &Vec<u8>| Names::read_short(name).ok_or_else(|| odd("names"));
        names.iter().map(read).collect()
    }
}

fn tell(key: &SharedKey, entry: DirtyEntry) -> Claimed {
    Claimed {
        key: key.clone(),
        held: entry.held,
        base: entry.base,
        since: entry.since,
    }
}

fn read_entry(key: &SharedKey, answer: Value) -> Result<Option<DirtyEntry>, SharedError> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(entry) => {
            let entry = layout::dirty(Bytes::from(entry));
            entry.map(Some).ok_or_else(|| layout::unknown_layout(key))
        }
        _ => Err(odd("an entry")),
    }
}

fn read_put(answer: Value) -> Result<PutOutcome, SharedError> {
    match answer {
        Value::BulkString(letter) => match &letter[..] {
            b"B" => Ok(PutOutcome::Busy),
            b"C" => Ok(PutOutcome::Changed),
            b"F" => Ok(PutOutcome::Full),
            _ => Err(odd("a put")),
        },
        answer => {
            let [version, existed, base] =
                <[Vec<u8>; 3]>::try_from(members(answer)?).map_err(|_| odd("a put"))?;
            let number = |bytes: &[u8]| {
                let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| odd("a put"))?;
                Ok(Version::from_raw(u64::from_be_bytes(bytes)))
            };
            Ok(PutOutcome::Dirty {
                version: number(&version)?,
                base: match &base[..] {
                    b"" => None,
                    base => Some(number(base)?),
                },
                existed: match &existed[..] {
                    b"" => None,
                    b"1" => Some(true),
                    _ => Some(false),
                },
            })
        }
    }
}

fn read_figures(answer: Value) -> Result<ShardDirty, SharedError> {
    let Value::Array(answer) = answer else {
        return Err(odd("figures"));
    };
    let [dirty, parked, bytes, oldest] =
        <[Value; 4]>::try_from(answer).map_err(|_| odd("figures"))?;
    let count = |value: Value| match value {
        Value::Int(count) => u64::try_from(count).map_err(|_| odd("figures")),
        _ => Err(odd("figures")),
    };
    let text = |value: Value| match value {
        Value::BulkString(text) => String::from_utf8(text).map_err(|_| odd("figures")),
        _ => Err(odd("figures")),
    };
    let (dirty, parked) = (count(dirty)?, count(parked)?);
    let oldest = text(oldest)?;
    Ok(ShardDirty {
        entries: dirty.saturating_add(parked),
        parked,
        bytes: text(bytes)?.parse().unwrap_or(0),
        oldest: match oldest.as_str() {
            "" => None,
            millis => Some(Timestamp::from_millis(read_score(millis)?)),
        },
    })
}

/// A score of a sorted set, which is a moment in whole milliseconds.
fn read_score(text: &str) -> Result<u64, SharedError> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    let millis: f64 = text.parse().map_err(|_| odd("figures"))?;
    // Written as 1.7e+20: far beyond what a moment is; the conversion stays within the number.
    Ok(millis.max(0.0) as u64)
}
