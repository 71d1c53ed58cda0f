//! A batch, row by row in one transaction; what waits together is committed together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use tidegate_core::port::{
    Batch, Guard, Known, Outcome, StoreError, Swept, TableId, Timestamp, Write,
};
use tidegate_core::{Change, GENERATION_MAX, Key, Version, sum};
use tokio::sync::oneshot;

use super::error;
use super::table::{self, Table};

/// A batch that waits for its commit, with its tables.
pub(super) struct Waiting {
    pub(super) batch: Batch,
    pub(super) tables: Vec<Arc<Table>>,
    pub(super) reply: oneshot::Sender<Result<Vec<Outcome>, StoreError>>,
}

impl Waiting {
    pub(super) fn answer(self, answer: Result<Vec<Outcome>, StoreError>) {
        // Nobody waits for it any more if this fails.
        let _ = self.reply.send(answer);
    }
}

/// Commits batches in one transaction and answers each. A batch that is refused leaves no trace; the others
/// go on without it.
pub(super) fn commit(connection: &Connection, group: Vec<Waiting>) {
    match try_commit(connection, &group) {
        Ok(answers) => {
            for (waiting, answer) in group.into_iter().zip(answers) {
                waiting.answer(answer);
            }
        }
        // A constraint that is checked at the commit only: whose it was shows when each goes alone.
        Err(StoreError::Refused { .. }) if group.len() > 1 => {
            for waiting in group {
                commit(connection, vec![waiting]);
            }
        }
        Err(failed) => {
            for waiting in group {
                waiting.answer(Err(failed.clone()));
            }
        }
    }
}

type Answer = Result<Vec<Outcome>, StoreError>;

fn try_commit(connection: &Connection, group: &[Waiting]) -> Result<Vec<Answer>, StoreError> {
    let unavailable = |e: rusqlite::Error| error::unavailable(&e);
    // Immediate: a wait for another process happens here, not in the middle.
    connection
        .execute_batch("begin immediate")
        .map_err(unavailable)?;
    let rollback = Rollback(connection);
    let mut versions = Versions::read(connection).map_err(unavailable)?;
    let mut answers = Vec::with_capacity(group.len());
    for waiting in group {
        connection
            .execute_batch("savepoint batch")
            .map_err(unavailable)?;
        let answer = apply(connection, waiting, &mut versions);
        let undo = match answer {
            Ok(_) => "release batch",
            Err(_) => "rollback to batch; release batch",
        };
        connection.execute_batch(undo).map_err(unavailable)?;
        answers.push(answer);
    }
    versions.write(connection).map_err(unavailable)?;
    match connection.execute_batch("commit") {
        Ok(()) => {
            std::mem::forget(rollback);
            Ok(answers)
        }
        Err(e) => match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => Err(error::of_write(&e)),
            Some(rusqlite::ErrorCode::DatabaseBusy) => Err(error::unavailable(&e)),
            // What reached the file before the disk failed shows when it is opened next.
            _ => Err(StoreError::unknown(None, error::unavailable(&e))),
        },
    }
}

/// Ends the transaction, whatever its state.
struct Rollback<'a>(&'a Connection);

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("rollback");
        }
    }
}

/// The counter of versions, read and written once per transaction.
struct Versions {
    last: u64,
    changed: bool,
}

impl Versions {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let last: i64 = connection
            .prepare_cached("select value from tidegate_meta where name = 'version'")?
            .query_row([], |row| row.get(0))?;
        Ok(Self {
            last: last.unsigned_abs(),
            changed: false,
        })
    }

    /// A version greater than every one issued before and than `known`, which may have come with a guard.
    fn issue(&mut self, known: Version) -> Result<Version, StoreError> {
        self.last += 1;
        self.changed = true;
        let version = self.last.max(known.raw().saturating_add(1));
        i64::try_from(version)
            .map(|_| Version::from_raw(version))
            .map_err(|_| StoreError::refused(None, "no version is left for this key"))
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.changed {
            connection
                .prepare_cached("update tidegate_meta set value = ?1 where name = 'version'")?
                .execute([self.last.cast_signed()])?;
        }
        Ok(())
    }
}

/// The statements of one table, at hand for a batch.
struct Prepared<'a> {
    connection: &'a Connection,
    table: &'a Table,
    look: CachedStatement<'a>,
    insert: CachedStatement<'a>,
    update: CachedStatement<'a>,
    delete: CachedStatement<'a>,
    remember: CachedStatement<'a>,
}

/// Remembers a version; what is remembered only rises.
const REMEMBER: &str = "insert into tidegate_tombstone (table_name, key, version, deleted_at)
    values (?1, ?2, ?3, ?4)
    on conflict (table_name, key) do update
    set version = excluded.version, deleted_at = excluded.deleted_at
    where excluded.version > tidegate_tombstone.version";

impl<'a> Prepared<'a> {
    fn new(connection: &'a Connection, table: &'a Table) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            table,
            look: connection.prepare_cached(&table.sql.look)?,
            insert: connection.prepare_cached(&table.sql.insert)?,
            update: connection.prepare_cached(&table.sql.update)?,
            delete: connection.prepare_cached(&table.sql.delete)?,
            remember: connection.prepare_cached(REMEMBER)?,
        })
    }

    fn apply(
        &mut self,
        write: &Write,
        now: Timestamp,
        versions: &mut Versions,
    ) -> Result<Outcome, StoreError> {
        let refused = |e: rusqlite::Error| error::of_write(&e);
        let name = self.table.name.as_str();
        let key = table::key(&write.key);
        let now = table::millis(now);
        if let Some(version) = write.guard.version()
            && i64::try_from(version.raw()).is_err()
        {
            return Err(StoreError::refused(None, "the version is out of range"));
        }
        let found = self.look.query_row(params![key, name], |row| {
            let version = match row.get_ref(0)? {
                // There is no row, for a version is never null.
                ValueRef::Null => None,
                version => Some(table::version(version)),
            };
            let ends = table::end(row.get_ref(1)?);
            let live = row.get::<_, Option<bool>>(2)? == Some(true)
                && ends.is_none_or(|ends| table::millis(ends) > now);
            let remembered: Option<i64> = row.get(3)?;
            let remembered = remembered.map(|kept| Version::from_raw(kept.unsigned_abs()));
            Ok((version.map(|version| (version, live)), remembered))
        });
        let (row, remembered) = found.map_err(refused)?;
        let live = row.filter(|row| row.1).map(|row| row.0);
        let newest = row
            .map(|row| row.0)
            .max(remembered)
            .unwrap_or(Version::NONE);
        let mark = write.guard.once_key(&write.key);
        let once = match &mark {
            Some(mark) => self.once(mark).map_err(refused)?,
            None => Version::NONE,
        };
        let known = Known { live, newest, once };
        let version = match write.guard.admit(known) {
            Err(outcome) => return Ok(outcome),
            Ok(Some(version)) if i64::try_from(version.raw()).is_err() => {
                return Err(StoreError::refused(None, "the version is out of range"));
            }
            Ok(Some(version)) => version,
            Ok(None) => versions.issue(newest)?,
        };
        let number = version.raw().cast_signed();
        if let (Some(mark), Some(brought)) = (&mark, write.guard.version()) {
            let (key, brought) = (table::key(mark), brought.raw().cast_signed());
            let marked = params![once_name(name), key, brought, now];
            self.remember.execute(marked).map_err(refused)?;
        }
        let existed = live.is_some();
        let mut outcome = Outcome::Applied { version, existed };
        let sum = match write.change {
            Change::Add { by } => {
                let present = match live {
                    Some(_) => Some(self.present(&key).map_err(refused)?),
                    None => None,
                };
                let text = present.as_ref().map(|present| &*present.0);
                let value = sum(text, by).map_err(|e| StoreError::refused(None, e))?;
                let expires_at = present.and_then(|present| present.1);
                outcome = Outcome::Added {
                    version,
                    existed,
                    value,
                    expires_at,
                };
                Some(Change::Put {
                    value: value.to_string().into(),
                    expires_at,
                })
            }
            Change::Put { .. } | Change::Delete => None,
        };
        match sum.as_ref().unwrap_or(&write.change) {
            Change::Put { value, expires_at } => {
                let value = self.table.value(value)?;
                let expires_at = self.table.expiry(*expires_at)?;
                let put = match row {
                    Some(_) => &mut self.update,
                    None => &mut self.insert,
                };
                let mut columns: Vec<&dyn ToSql> = vec![&key, &value, &number];
                if self.table.spec.columns.expires_at.is_some() {
                    columns.push(&expires_at);
                }
                if self.table.spec.columns.updated_at.is_some() {
                    columns.push(&now);
                }
                let put = put.execute(&*columns);
                if put.map_err(refused)? == 0 {
                    return Err(StoreError::refused(
                        None,
                        format_args!("table {name} did not take the row: a trigger left it out"),
                    ));
                }
            }
            Change::Add { .. } | Change::Delete => {
                if row.is_some() {
                    self.delete.execute(params![key]).map_err(refused)?;
                }
                // Deletes of keys that never were must not fill the store.
                if row.is_some() || remembered.is_some() || write.guard != Guard::Always {
                    let remember = self.remember.execute(params![name, key, number, now]);
                    remember.map_err(refused)?;
                }
            }
        }
        Ok(outcome)
    }

    /// The last version that was applied under this mark.
    fn once(&self, mark: &Key) -> rusqlite::Result<Version> {
        const LOOK: &str =
            "select version from tidegate_tombstone where table_name = ?1 and key = ?2";
        let mut look = self.connection.prepare_cached(LOOK)?;
        let asked = params![once_name(&self.table.name), table::key(mark)];
        let version = look
            .query_row(asked, |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(version.map_or(Version::NONE, |v| Version::from_raw(v.unsigned_abs())))
    }

    /// Value and end of life of a row that is there.
    fn present(&self, key: &ToSqlOutput<'_>) -> rusqlite::Result<(Vec<u8>, Option<Timestamp>)> {
        let mut present = self.connection.prepare_cached(&self.table.sql.present)?;
        present.query_row(params![key], |row| {
            Ok((table::bytes(row.get_ref(0)?), table::end(row.get_ref(1)?)))
        })
    }
}

/// Where the marks of [`Guard::Once`] of a table are kept, among the versions of deleted keys.
fn once_name(table: &str) -> String {
    format!("{table} (once)")
}

fn apply(connection: &Connection, waiting: &Waiting, versions: &mut Versions) -> Answer {
    let batch = &waiting.batch;
    let mut prepared: HashMap<TableId, Prepared<'_>> = HashMap::new();
    let mut outcomes = Vec::with_capacity(batch.writes.len());
    for (item, write) in batch.writes.iter().enumerate() {
        let statements = match prepared.entry(write.table) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let Some(table) = waiting.tables.get(usize::from(write.table.0)) else {
                    return Err(StoreError::refused_item(item, "no such table"));
                };
                let statements = Prepared::new(connection, table);
                entry.insert(statements.map_err(|e| error::of_write(&e))?)
            }
        };
        let outcome = statements.apply(write, batch.now, versions);
        outcomes.push(outcome.map_err(|e| at_item(item, e))?);
    }
    Ok(outcomes)
}

fn at_item(item: usize, error: StoreError) -> StoreError {
    match error {
        StoreError::Refused { code, message, .. } => StoreError::Refused {
            item: Some(item),
            code,
            message,
        },
        other => other,
    }
}

/// Takes a new generation and moves the counter of versions to it.
pub(super) fn open_generation(connection: &Connection, at_least: u64) -> Result<u64, StoreError> {
    // Both stand in one row each; neither ever goes back.
    const TAKE: &str = "update tidegate_meta set value = max(value + 1, ?1)
        where name = 'generation' and max(value + 1, ?1) <= ?2 returning value";
    const MOVE: &str = "update tidegate_meta set value = max(value, ?1) where name = 'version'";
    let exhausted = || {
        StoreError::configuration(format_args!(
            "generation {at_least} or the next one is asked for and {GENERATION_MAX} is the last there is"
        ))
    };
    let at_least = i64::try_from(at_least).map_err(|_| exhausted())?;
    transaction(connection, || {
        let taken = connection.query_row(
            TAKE,
            params![at_least, GENERATION_MAX.cast_signed()],
            |row| row.get::<_, i64>(0),
        );
        let Some(generation) = taken.optional()? else {
            return Ok(None);
        };
        let generation = generation.unsigned_abs();
        let floor = Version::compose(generation, 0).raw().cast_signed();
        connection.execute(MOVE, [floor])?;
        Ok(Some(generation))
    })?
    .ok_or_else(exhausted)
}

/// Removes expired rows, remembering their versions, and forgets old ones.
pub(super) fn sweep(
    connection: &Connection,
    table: &Table,
    now: Timestamp,
    remember: Duration,
    limit: usize,
) -> Result<Swept, StoreError> {
    // The oldest first, through the index on the time of the deletion.
    const FORGET: &str = "delete from tidegate_tombstone where table_name = ?1 and key in (
        select key from tidegate_tombstone
        where table_name = ?1 and deleted_at < ?2 order by deleted_at limit ?3)";
    let millis = table::millis(now);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let before = u128::from(now.as_millis()).saturating_sub(remember.as_millis());
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    transaction(connection, || {
        let mut swept = Swept::default();
        if let Some(expired) = &table.sql.expired {
            let mut rows = Vec::new();
            let mut statement = connection.prepare_cached(expired)?;
            let mut found = statement.query(params![millis, limit])?;
            while let Some(row) = found.next()? {
                let text = matches!(row.get_ref(0)?, ValueRef::Text(_));
                let version = table::version(row.get_ref(1)?).raw().cast_signed();
                rows.push((text, table::bytes(row.get_ref(0)?), version));
            }
            drop(found);
            let mut delete = connection.prepare_cached(&table.sql.delete)?;
            let mut remember = connection.prepare_cached(REMEMBER)?;
            for (text, key, version) in &rows {
                let key = ToSqlOutput::Borrowed(match text {
                    true => ValueRef::Text(key),
                    false => ValueRef::Blob(key),
                });
                delete.execute(params![key])?;
                remember.execute(params![table.name, key, version, millis])?;
            }
            swept.expired = rows.len() as u64;
        }
        let mut forget = connection.prepare_cached(FORGET)?;
        for name in [table.name.clone(), once_name(&table.name)] {
            swept.forgotten += forget.execute(params![name, before, limit])? as u64;
        }
        Ok(swept)
    })
}

fn transaction<T>(
    connection: &Connection,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let run = || {
        connection.execute_batch("begin immediate")?;
        let _rollback = Rollback(connection);
        let done = work()?;
        connection.execute_batch("commit")?;
        Ok(done)
    };
    run().map_err(|e| error::unavailable(&e))
}
