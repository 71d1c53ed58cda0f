//! Writing through and around: mark, release, sweep; and what makes entries absent: invalidate, evict, clear.

use redis::Value;
use tidegate_core::Version;
use tidegate_core::port::{
    Each, Ended, Leftover, Mark, Marked, Release, Shard, SharedError, SharedKey, StoreTime, Token,
};

use super::cache::{Inner, flag};
use super::call::{Call, Word};
use super::error::odd;
use super::layout;
use super::names::{Changed, EntryName, Names, ShardNames};
use super::reads::{check_value, done};
use super::script::Script;

/// How many keys are looked at together when all are cleared.
const CLEAR_PAGE: u32 = 1000;

impl Inner {
    /// A script over an entry and the generation of its shard.
    pub(super) fn entry_call<'a>(
        &'a self,
        key: &SharedKey,
        script: &'a Script,
        words: Vec<Word<'a>>,
    ) -> Result<Call<'a>, SharedError> {
        let (shard, name) = self.names.entry(key)?;
        let keys = vec![key_of(&shard.meta), name.full.into()];
        Ok(Call::script(name.shard, script, keys, words))
    }

    /// The same, with the index of marks beside it.
    fn mark_call<'a>(
        &'a self,
        key: &SharedKey,
        script: &'a Script,
        words: impl FnOnce(&EntryName) -> Vec<Word<'a>>,
    ) -> Result<Call<'a>, SharedError> {
        let (shard, name) = self.names.entry(key)?;
        let words = words(&name);
        let keys = vec![key_of(&shard.meta), name.full.into(), key_of(&shard.marks)];
        Ok(Call::script(name.shard, script, keys, words))
    }

    pub(super) async fn mark(&self, marks: &[Mark]) -> Each<Marked> {
        self.each(
            marks,
            |mark| {
                self.mark_call(&mark.key, &self.scripts.mark, |name| {
                    let commit_by = mark.commit_by.as_micros();
                    vec![
                        Word::from(mark.token.0),
                        Word::Bytes(name.short().to_vec().into()),
                        Word::Number(commit_by.to_be_bytes()),
                        Word::Text(commit_by.to_string()),
                    ]
                })
            },
            |_, answer| match flag(&answer.value)? {
                true => Ok(Marked::Quarantined),
                false => Ok(Marked::Dirty),
            },
        )
        .await
    }

    pub(super) async fn release(&self, releases: &[Release]) -> Each<()> {
        self.each(
            releases,
            |release| {
                if let Ended::Committed { held, .. } = &release.ended {
                    check_value(&release.key, held)?;
                }
                self.mark_call(&release.key, &self.scripts.release, |name| {
                    let mut words = vec![
                        Word::from(release.token.0),
                        Word::Bytes(name.short().to_vec().into()),
                    ];
                    match &release.ended {
                        Ended::Committed { held, life } => words.extend([
                            Word::Slice(b"C"),
                            Word::from(held.version.raw()),
                            Word::from(life.fresh_until.as_millis()),
                            Word::Number(layout::kept_for(life.kept_for)),
                            Word::Bytes(layout::held(held)),
                        ]),
                        Ended::CommittedUnseen(version) => {
                            words.extend([Word::Slice(b"U"), Word::from(version.raw())]);
                        }
                        Ended::Aborted => words.extend([Word::Slice(b"A"), Word::from(0)]),
                    }
                    words
                })
            },
            |_, answer| done(&answer),
        )
        .await
    }

    pub(super) async fn sweep(&self, marks: &[(SharedKey, Token)]) -> Each<()> {
        self.each(
            marks,
            |(key, token)| {
                self.mark_call(key, &self.scripts.sweep, |name| {
                    let name = name.short().to_vec();
                    vec![Word::from(token.0), Word::Bytes(name.into())]
                })
            },
            |_, answer| done(&answer),
        )
        .await
    }

    pub(super) async fn leftovers(
        &self,
        shard: Shard,
        before: StoreTime,
        limit: usize,
    ) -> Result<Vec<Leftover>, SharedError> {
        let names = self.names.shard(shard)?;
        let words = vec![
            Word::Text(before.as_micros().to_string()),
            limit_word(limit),
        ];
        let keys = vec![key_of(&names.meta), key_of(&names.marks)];
        let call = Call::script(shard, &self.scripts.leftovers, keys, words).only_looks();
        let Value::Array(answer) = self.one(call).await?.value else {
            return Err(odd("leftovers"));
        };
        let [found, void] = <[Value; 2]>::try_from(answer).map_err(|_| odd("leftovers"))?;
        self.remove_void(shard, names, members(void)?).await;
        let read = |member: Vec<u8>| {
            layout::mark(&member, Names::read_short).ok_or_else(|| odd("leftovers"))
        };
        let found: Vec<_> = members(found)?
            .into_iter()
            .map(read)
            .collect::<Result<_, _>>()?;
        // A score is exact up to the year 2255; what is told is exact always.
        let is_over = |mark: &Leftover| mark.commit_by < before;
        Ok(found.into_iter().filter(is_over).collect())
    }

    /// Marks of another generation mean nothing: they and their quarantines only take room. What cannot be removed now
    /// is found again.
    async fn remove_void(&self, shard: Shard, names: &ShardNames, marks: Vec<Vec<u8>>) {
        let entry = |mark: &Vec<u8>| {
            let key = Names::read_short(mark.get(24..)?)?;
            self.names.entry(&key).ok().map(|(_, name)| name.full)
        };
        let call = |mark: &Vec<u8>| {
            let keys = vec![
                key_of(&names.meta),
                entry(mark)?.into(),
                key_of(&names.marks),
            ];
            let words = vec![Word::Bytes(mark.clone().into())];
            Some(Call::script(shard, &self.scripts.void, keys, words))
        };
        let calls: Vec<_> = marks.iter().filter_map(call).collect();
        let failures = self.call(&calls, false).await;
        if let Some(error) = failures.into_iter().find_map(Result::err) {
            tracing::debug!(%error, "marks of an earlier generation stay for now");
        }
    }

    pub(super) async fn invalidate(&self, changed: &[(SharedKey, Version)]) -> Each<()> {
        self.each(
            changed,
            |(key, version)| {
                let words = vec![Word::from(version.raw())];
                self.entry_call(key, &self.scripts.invalidate, words)
            },
            |_, answer| done(&answer),
        )
        .await
    }

    pub(super) async fn evict(&self, keys: &[SharedKey]) -> Each<()> {
        self.each(
            keys,
            |key| self.entry_call(key, &self.scripts.evict, Vec::new()),
            |_, answer| done(&answer),
        )
        .await
    }

    /// Goes over all keys of all servers. An entry that is there all the time is found, unless its slot moves meanwhile:
    /// then it begins anew.
    pub(super) async fn clear(&self) -> Result<(), SharedError> {
        const TRIES: u32 = 5;
        self.check_open()?;
        let mut changes = self.servers.changes();
        for _ in 0..TRIES {
            changes.mark_unchanged();
            for (_, node) in self.servers.all() {
                let mut cursor = Vec::from(*b"0");
                loop {
                    let mut scan = redis::cmd("SCAN");
                    scan.arg(&cursor).arg("MATCH").arg(self.names.pattern());
                    scan.arg("COUNT").arg(CLEAR_PAGE);
                    let answer = node.live().await?.send(&scan).await?;
                    let (next, keys) = read_page(answer)?;
                    self.clear_page(&keys).await?;
                    cursor = next;
                    if cursor == b"0" {
                        break;
                    }
                }
            }
            if !changes.has_changed().unwrap_or(false) {
                return Ok(());
            }
        }
        Err(SharedError::unavailable(
            "slots keep moving while it is cleared",
        ))
    }

    async fn clear_page(&self, keys: &[Vec<u8>]) -> Result<(), SharedError> {
        let entries = keys.iter().filter_map(|key| match self.names.read(key) {
            Changed::Entry(key) => Some(key),
            Changed::Meta | Changed::Other => None,
        });
        let entries: Vec<_> = entries.collect();
        for evicted in self.evict(&entries).await {
            match evicted {
                // What it has is of an earlier generation, and absent.
                Ok(()) | Err(SharedError::NeedsGeneration { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How many things at most, in what Lua counts with and Redis takes as a place in an index.
pub(super) fn limit_word<'a>(limit: usize) -> Word<'a> {
    Word::Text(limit.min(i32::MAX as usize).to_string())
}

/// A key that lives as long as the names.
pub(super) fn key_of(name: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    std::borrow::Cow::Borrowed(name)
}

/// The strings of an answer.
pub(super) fn members(answer: Value) -> Result<Vec<Vec<u8>>, SharedError> {
    let Value::Array(answer) = answer else {
        return Err(odd("a list"));
    };
    let one = |value| match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(odd("a list")),
    };
    answer.into_iter().map(one).collect()
}

fn read_page(answer: Value) -> Result<(Vec<u8>, Vec<Vec<u8>>), SharedError> {
    let Value::Array(answer) = answer else {
        return Err(match answer {
            Value::ServerError(_) => SharedError::configuration(
                "the shared cache cannot be cleared: its user may not SCAN; add +scan to its ACL rule",
            ),
            _ => odd("SCAN"),
        });
    };
    let [cursor, keys] = <[Value; 2]>::try_from(answer).map_err(|_| odd("SCAN"))?;
    match cursor {
        Value::BulkString(cursor) => Ok((cursor, members(keys)?)),
        _ => Err(odd("SCAN")),
    }
}
