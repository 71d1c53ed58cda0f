//! The transaction of a batch. The front page of this folder tells the plain, the exact and the lone way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_core::port::{Batch, Guard, Known, Outcome, StoreError, Ticket, Write};
use tidegate_core::{Change, Entry, Key, SumError, Version};
use tokio_postgres::{Error, Row, Statement};

use super::connect::{Asked, Lease, Parameters, Pool, pipeline};
use super::error::{self, Trouble};
use super::moment::Moment;
use super::one_trip;
use super::plan::{self, Array, Group, Plain, Plan};
use super::session;
use super::settle::settle;
use super::support::{LOCK_CLASS, Support};
use super::table::Table;

/// How hard a batch holds others off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    OneTrip,
    Plain,
    Exact,
    Alone,
}

/// After so many tries alone it is no other writer of ours that is in the way.
const TRIES_MAX: usize = 6;

/// The statements that belong to no table.
pub(super) struct Common {
    /// `$1` the class, `$2` the tables, sorted. Gives the number of the transaction.
    lock_shared: Arc<str>,
    lock_alone: Arc<str>,
    /// `$1` how many. Gives versions.
    issue: Arc<str>,
    /// `$1` the number of a transaction.
    pub(super) status: Arc<str>,
    /// The statements of `session`.
    pub(super) register: Arc<str>,
    pub(super) close: Arc<str>,
}

impl Common {
    pub(super) fn of(support: &Support) -> Self {
        // The number is asked for in the same statement, so that it is known before anything is sent to
        // be committed. The locks come first, and in one order everywhere.
        let lock = |function: &str| {
            format!(
                "select pg_current_xact_id()::text::bigint, (
                     select count({function}($1::int, u.t)) from unnest($2::int[]) as u (t))"
            )
        };
        let sequence = super::sql::literal(&support.sequence);
        Self {
            lock_shared: lock("pg_advisory_xact_lock_shared").into(),
            lock_alone: lock("pg_advisory_xact_lock").into(),
            issue: format!(
                "select nextval({sequence}::regclass) from generate_series(1, $1::bigint)"
            )
            .into(),
            status: "select pg_xact_status($1::bigint::text::xid8)".into(),
            register: session::register(&support.session).into(),
            close: session::close(&support.session).into(),
        }
    }
}

/// Applies a batch, in a stronger way as long as others are in between.
pub(super) async fn apply(
    pool: &Pool,
    common: &Common,
    tables: &[Arc<Table>],
    batch: &Batch,
) -> Result<Vec<Outcome>, StoreError> {
    let plan = Plan::new(tables, batch)?;
    pool.adrift.fence(pool, common).await?;
    let plain = || plan.groups.iter().all(|group| group.plain().is_some());
    let mut way = match one_trip::fits(&plan) {
        true => Way::OneTrip,
        false if plain() => Way::Plain,
        false => Way::Exact,
    };
    let mut renewed = false;
    let mut last = Trouble::Race;
    for _ in 0..TRIES_MAX {
        let lease = pool.get().await?;
        let is_new = lease.is_new;
        let done = match way {
            Way::OneTrip => one_trip::put(pool, common, &plan, lease).await,
            _ => transaction(pool, common, &plan, lease, way).await,
        };
        match done {
            Ok(outcomes) => return Ok(outcomes),
            Err(trouble @ (Trouble::Race | Trouble::Short(_))) => {
                way = match way {
                    Way::OneTrip => Way::Plain,
                    Way::Plain => Way::Exact,
                    Way::Exact | Way::Alone => Way::Alone,
                };
                last = trouble;
            }
            // The server may have been away since the connection was last used; nothing was committed.
            Err(Trouble::Lost(StoreError::Unavailable { .. })) if !is_new && !renewed => {
                pool.forget_idle();
                renewed = true;
            }
            Err(other) => return Err(other.into()),
        }
    }
    Err(last.into())
}

async fn transaction(
    pool: &Pool,
    common: &Common,
    plan: &Plan<'_>,
    mut lease: Lease<'_>,
    way: Way,
) -> Result<Vec<Outcome>, Trouble> {
    let work = async {
        match way {
            Way::OneTrip | Way::Plain => plain(plan, &mut lease).await,
            Way::Exact | Way::Alone => exact(common, plan, &mut lease, way).await,
        }
    };
    let done = tokio::time::timeout(pool.timeout(), work).await;
    let (ticket, outcomes) = match done {
        Ok(Ok(done)) => done,
        Ok(Err(Trouble::Lost(error))) => return Err(Trouble::Lost(error)),
        Ok(Err(trouble)) => {
            lease.roll_back().await;
            return Err(trouble);
        }
        // The commit was not sent, and cannot be any more once the connection is closed.
        Err(_) => {
            let late = StoreError::unavailable("the database did not answer in time");
            return Err(Trouble::Failed(late));
        }
    };
    let commit = tokio::time::timeout(pool.timeout(), lease.client().batch_execute("commit")).await;
    let why = match commit {
        Ok(Ok(())) => {
            lease.give_back();
            return Ok(outcomes);
        }
        Ok(Err(e)) => match e.as_db_error() {
            // Refused at the last moment, by a constraint that is checked only then.
            Some(answer) if !error::is_end(answer) => {
                lease.roll_back().await;
                return Err(e.into());
            }
            _ => e.to_string(),
        },
        Err(_) => "the database did not answer in time".into(),
    };
    drop(lease);
    pool.forget_idle();
    settle(pool, common, plan, ticket, outcomes, &why)
        .await
        .map_err(Trouble::Failed)
}

pub(super) fn references<'a>(arrays: &'a [Array<'_>]) -> Parameters<'a> {
    arrays.iter().map(|array| &**array as _).collect()
}

pub(super) fn version(row: &Row, column: usize) -> Version {
    Version::from_raw(row.get::<_, i64>(column).unsigned_abs())
}

/// The place that `with ordinality` gave, from nought on.
fn place(row: &Row) -> usize {
    usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX)
}

const BEGIN: &str = "begin isolation level read committed read write";

/// The number of the transaction out of the answer to the lock.
fn ticket(answer: &[Row]) -> Ticket {
    Ticket(
        answer
            .first()
            .map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()),
    )
}

/// The locks of a plan's tables, in one order everywhere.
fn tables(plan: &Plan<'_>) -> Vec<i32> {
    plan.groups.iter().map(|group| group.table.lock).collect()
}

/// One upsert per table, all sent at once. Anything that is not plain is a race, to be taken the exact way.
async fn plain(plan: &Plan<'_>, lease: &mut Lease<'_>) -> Result<(Ticket, Vec<Outcome>), Trouble> {
    let now = Moment::at_most(plan.batch.now).end();
    let mut statements = Vec::new();
    for group in &plan.groups {
        let sql = &group.table.sql;
        let put = match group.plain() {
            Some(Plain::IfNewer) => &sql.put_if_newer,
            Some(Plain::Flush) => &sql.put_over,
            _ => &sql.put_always,
        };
        statements.push((
            lease.prepare(put).await?,
            lease.prepare(&sql.remembered).await?,
        ));
    }
    let arrays: Vec<(Vec<Array<'_>>, Array<'_>)> = plan
        .groups
        .iter()
        .map(|group| {
            let writes: Vec<&Write> = group.writes.iter().map(|write| write.1).collect();
            let mut puts = plan::puts(group.table, &writes);
            if group.brings_versions() {
                puts.push(plan::versions(writes.iter().map(|write| brought(write))));
            }
            if group.plain() == Some(Plain::Flush) {
                puts.push(plan::bases(&writes));
            }
            (puts, plan::key_bytes(writes.into_iter()))
        })
        .collect();
    // Only a row that is new can come after a deletion that is newer: a row that was there was looked at when
    // it was made. (A flush brings a number of its own, and looks always.) Where rows were new in the last
    // batch the look goes out with the rest, elsewhere it costs a trip of its own when it is needed.
    let looks: Vec<bool> = plan
        .groups
        .iter()
        .map(|group| group.brings_versions() || group.table.grows.load(Ordering::Relaxed))
        .collect();
    let mut asked: Vec<Asked<'_>> = vec![lease.tell(BEGIN)];
    for (((group, (put, remembered)), (puts, keys)), look) in
        plan.groups.iter().zip(&statements).zip(&arrays).zip(&looks)
    {
        let mut parameters: Parameters<'_> = vec![&now];
        parameters.extend(references(puts));
        asked.push(lease.ask(put.clone(), parameters));
        if *look {
            // After the rows are ours: whoever deleted one of them before has committed and is seen.
            asked.push(lease.ask(remembered.clone(), vec![&**keys, &group.table.name]));
        }
    }
    let mut answers = pipeline(asked).await?.into_iter().skip(1);
    let mut ticket = None;
    let mut outcomes = vec![Outcome::Changed; plan.batch.writes.len()];
    let mut late: Vec<Asked<'_>> = Vec::new();
    let mut late_groups: Vec<&Group<'_>> = Vec::new();
    for (((group, (_, remembered)), (_, keys)), look) in
        plan.groups.iter().zip(&statements).zip(&arrays).zip(&looks)
    {
        let rows = answers.next().unwrap_or_default();
        if rows.len() != group.writes.len() {
            return Err(Trouble::Race);
        }
        let mut grows = false;
        for ((item, write), row) in group.writes.iter().zip(&rows) {
            if !is_key(row, &write.key, group.table) {
                return Err(Trouble::Race);
            }
            let is_new = row.get::<_, bool>(2);
            grows |= is_new;
            if is_new && is_over_a_row(write) {
                // What it was made over is gone.
                return Err(Trouble::Race);
            }
            outcomes[*item] = Outcome::Applied {
                version: version(row, 1),
                existed: !is_new,
            };
            ticket.get_or_insert(row.get::<_, i64>(3).unsigned_abs());
        }
        group.table.grows.store(grows, Ordering::Relaxed);
        if *look {
            follows_deletions(group, &answers.next().unwrap_or_default(), &outcomes)?;
        } else if grows {
            late.push(lease.ask(remembered.clone(), vec![&**keys, &group.table.name]));
            late_groups.push(group);
        }
    }
    if !late.is_empty() {
        for (group, remembered) in late_groups.into_iter().zip(pipeline(late).await?) {
            follows_deletions(group, &remembered, &outcomes)?;
        }
    }
    Ok((Ticket(ticket.unwrap_or(0)), outcomes))
}

/// Every row written is newer than what is remembered of a deletion of its key; otherwise it is a race.
fn follows_deletions(
    group: &Group<'_>,
    remembered: &[Row],
    outcomes: &[Outcome],
) -> Result<(), Trouble> {
    for row in remembered {
        let item = group.writes.get(place(row)).map(|write| write.0);
        match item.map(|item| outcomes[item]) {
            Some(Outcome::Applied {
                version: written, ..
            }) if version(row, 1) < written => {}
            _ => return Err(Trouble::Race),
        }
    }
    Ok(())
}

fn is_key(row: &Row, key: &Key, table: &Table) -> bool {
    match table.keys {
        super::table::Keys::Text => row.get::<_, &str>(0).as_bytes() == key.as_bytes(),
        super::table::Keys::Bytes => row.get::<_, &[u8]>(0) == key.as_bytes(),
    }
}

/// Whether a flush was made over a row.
fn is_over_a_row(write: &Write) -> bool {
    matches!(write.guard, Guard::Flush { base: Some(base), .. } if base > Version::NONE)
}

/// The version that came with the guard.
fn brought(write: &Write) -> Version {
    write.guard.version().unwrap_or(Version::NONE)
}

/// What is to be written to one table.
#[derive(Default)]
struct Decided<'a> {
    insert: Vec<(&'a Write, Version)>,
    update: Vec<(&'a Write, Version)>,
    delete: Vec<&'a Write>,
    remember: Vec<(&'a Write, Version)>,
    /// Marks of writes that apply once, with their own keys.
    once: Vec<(Key, Version)>,
}

/// Where the marks of [`Guard::Once`] of a table are kept, among the versions of deleted keys.
pub(super) fn once_name(table: &Table) -> String {
    format!("{} (once)", table.name)
}

/// The keys of the marks of a group, and the places of their writes in it.
fn once_keys(group: &Group<'_>) -> (Vec<usize>, Vec<Key>) {
    let marks = group.writes.iter().enumerate();
    let marks = marks.filter_map(|(at, (_, write))| Some((at, write.guard.once_key(&write.key)?)));
    marks.unzip()
}

fn has_sums(group: &Group<'_>) -> bool {
    let is_sum = |(_, write): &(usize, &Write)| matches!(write.change, Change::Add { .. });
    group.writes.iter().any(is_sum)
}

/// What the database said of the rows of a group, once they were locked.
#[derive(Clone, Copy, Default)]
struct Found<'a> {
    locked: &'a [Row],
    remembered: &'a [Row],
    /// Marks of writes that apply once, in the order of [`once_keys`].
    once: &'a [Row],
    /// The rows with their values, where there is something to add to.
    loaded: &'a [Row],
}

/// An addition as the put that it comes to, and what it comes to.
type Sum = (Write, Result<i64, SumError>);

/// The additions of a group; nothing for other writes. One that cannot be done counts only if it applies.
fn sums_of(group: &Group<'_>, found: &Found<'_>) -> Result<Vec<Option<Sum>>, Trouble> {
    let mut present = vec![None; group.writes.len()];
    for row in found.loaded {
        let entry = super::store::entry(row, group.table.values)?;
        if let Some(slot) = present.get_mut(place(row)) {
            *slot = Some(entry);
        }
    }
    let sum = |((_, write), present): (&(usize, &Write), Option<Entry>)| {
        let Change::Add { by } = write.change else {
            return None;
        };
        let value = tidegate_core::sum(present.as_ref().map(|entry| &*entry.value), by);
        let change = Change::Put {
            value: value.unwrap_or_default().to_string().into(),
            expires_at: present.and_then(|entry| entry.expires_at),
        };
        let (table, key, guard) = (write.table, write.key.clone(), write.guard);
        let put = Write {
            table,
            key,
            change,
            guard,
        };
        Some((put, value))
    };
    Ok(group.writes.iter().zip(present).map(sum).collect())
}

/// Locks the rows, decides as the reference does, then writes.
async fn exact(
    common: &Common,
    plan: &Plan<'_>,
    lease: &mut Lease<'_>,
    way: Way,
) -> Result<(Ticket, Vec<Outcome>), Trouble> {
    let lock = match way {
        Way::Alone => &common.lock_alone,
        Way::OneTrip | Way::Plain | Way::Exact => &common.lock_shared,
    };
    let lock = lease.prepare(lock).await?;
    let issue = lease.prepare(&common.issue).await?;
    let mut statements = Vec::new();
    for group in &plan.groups {
        let sql = &group.table.sql;
        statements.push((
            lease.prepare(&sql.lock).await?,
            lease.prepare(&sql.remembered).await?,
            match has_sums(group) {
                true => Some(lease.prepare(&sql.load).await?),
                false => None,
            },
        ));
    }
    let now = Moment::at_most(plan.batch.now).end();
    let tables = tables(plan);
    let count = i64::try_from(plan.batch.writes.len()).unwrap_or(i64::MAX);
    let marks: Vec<(Vec<usize>, Vec<Key>)> = plan.groups.iter().map(once_keys).collect();
    let marks: Vec<(String, Array<'_>, &[usize])> = plan
        .groups
        .iter()
        .zip(&marks)
        .map(|(group, (places, keys))| {
            let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
            (once_name(group.table), Box::new(keys) as _, &**places)
        })
        .collect();
    let keys: Vec<(Array<'_>, Array<'_>)> = plan
        .groups
        .iter()
        .map(|group| {
            let writes = || group.writes.iter().map(|write| write.1);
            (
                plan::keys(group.table, writes().map(|write| &write.key)),
                plan::key_bytes(writes()),
            )
        })
        .collect();
    let mut asked: Vec<Asked<'_>> = vec![
        lease.tell(BEGIN),
        lease.ask(lock, vec![&LOCK_CLASS, &tables]),
    ];
    for (((group, (lock, remembered, load)), (keys, bytes)), (name, once, places)) in
        plan.groups.iter().zip(statements).zip(&keys).zip(&marks)
    {
        asked.push(lease.ask(lock, vec![&**keys, &now]));
        let name_of = &group.table.name;
        asked.push(lease.ask(remembered.clone(), vec![&**bytes, name_of]));
        if !places.is_empty() {
            asked.push(lease.ask(remembered, vec![&**once, name]));
        }
        if let Some(load) = load {
            asked.push(lease.ask(load, vec![&**keys, &now]));
        }
    }
    // Issued when all rows are locked.
    asked.push(lease.ask(issue, vec![&count]));
    let mut answers = pipeline(asked).await?;
    let ticket = ticket(&answers[1]);
    let issued = answers.pop().unwrap_or_default();
    let mut issued = issued.iter().map(|row| version(row, 0));
    let mut answers = answers[2..].iter().map(Vec::as_slice);
    let mut next = |is_asked: bool| match is_asked {
        true => answers.next().unwrap_or_default(),
        false => &[],
    };
    let mut found = Vec::with_capacity(plan.groups.len());
    for (group, (_, _, places)) in plan.groups.iter().zip(&marks) {
        found.push(Found {
            locked: next(true),
            remembered: next(true),
            once: next(!places.is_empty()),
            loaded: next(has_sums(group)),
        });
    }
    let sums = plan.groups.iter().zip(&found);
    let sums = sums.map(|(group, found)| sums_of(group, found));
    let sums = sums.collect::<Result<Vec<_>, _>>()?;
    let mut outcomes = vec![Outcome::Changed; plan.batch.writes.len()];
    let mut decided = Vec::new();
    for (((group, found), sums), (_, _, places)) in
        plan.groups.iter().zip(&found).zip(&sums).zip(&marks)
    {
        let issued = &mut issued;
        let done = decide(group, *found, places, sums, issued, &mut outcomes, way)?;
        decided.push(done);
    }
    write(plan, lease, &decided).await?;
    Ok((ticket, outcomes))
}

fn decide<'a>(
    group: &'a Group<'_>,
    found: Found<'_>,
    once_places: &[usize],
    sums: &'a [Option<Sum>],
    issued: &mut impl Iterator<Item = Version>,
    outcomes: &mut [Outcome],
    way: Way,
) -> Result<Decided<'a>, Trouble> {
    let mut rows = vec![None; group.writes.len()];
    for row in found.locked {
        if let Some(slot) = rows.get_mut(place(row)) {
            *slot = Some((version(row, 1), row.get::<_, bool>(2)));
        }
    }
    let mut deleted = vec![None; group.writes.len()];
    for row in found.remembered {
        if let Some(slot) = deleted.get_mut(place(row)) {
            *slot = Some(version(row, 1));
        }
    }
    let mut once = vec![Version::NONE; group.writes.len()];
    for row in found.once {
        let at = once_places.get(place(row)).copied();
        if let Some(slot) = at.and_then(|at| once.get_mut(at)) {
            *slot = version(row, 1);
        }
    }
    let mut decided = Decided::default();
    let writes = group.writes.iter().zip(rows).zip(deleted).zip(once);
    for (((((item, write), row), deleted), once), sum) in writes.zip(sums) {
        let live = row.filter(|row| row.1).map(|row| row.0);
        let newest = row.map(|row| row.0).max(deleted).unwrap_or(Version::NONE);
        let known = Known { live, newest, once };
        let version = match write.guard.admit(known) {
            Err(outcome) => {
                outcomes[*item] = outcome;
                continue;
            }
            Ok(Some(version)) if i64::try_from(version.raw()).is_err() => {
                let out = StoreError::refused_item(*item, "the version is out of range");
                return Err(Trouble::Failed(out));
            }
            Ok(Some(version)) => version,
            Ok(None) => {
                let next = issued.next().unwrap_or(Version::NONE).raw();
                let next = next.max(newest.raw().saturating_add(1));
                if i64::try_from(next).is_err() {
                    let none = StoreError::refused_item(*item, "no version is left for this key");
                    return Err(Trouble::Failed(none));
                }
                Version::from_raw(next)
            }
        };
        let existed = live.is_some();
        let (write, outcome) = match sum {
            None => (*write, Outcome::Applied { version, existed }),
            Some((put, value)) => {
                let refused = |e: SumError| StoreError::refused_item(*item, e);
                let added = Outcome::Added {
                    version,
                    existed,
                    value: value.map_err(|e| Trouble::Failed(refused(e)))?,
                    expires_at: put.expires_at(),
                };
                (put, added)
            }
        };
        outcomes[*item] = outcome;
        if let (Some(key), Some(mark)) = (write.guard.once_key(&write.key), write.guard.version()) {
            decided.once.push((key, mark));
        }
        match (&write.change, row) {
            (Change::Put { .. } | Change::Add { .. }, Some(_)) => {
                decided.update.push((write, version));
            }
            (Change::Put { .. } | Change::Add { .. }, None) => {
                decided.insert.push((write, version));
            }
            // Somebody may be about to make the row, which nothing but being alone keeps from happening.
            (Change::Delete, None) if way != Way::Alone => return Err(Trouble::Race),
            (Change::Delete, row) => {
                if row.is_some() {
                    decided.delete.push(write);
                }
                if row.is_some() || deleted.is_some() || write.guard != Guard::Always {
                    decided.remember.push((write, version));
                }
            }
        }
    }
    Ok(decided)
}

/// One statement that is about to be sent, and how many rows it must give.
struct Sent<'a> {
    table: &'a str,
    statement: Statement,
    arrays: Vec<Array<'a>>,
    rows: Option<usize>,
}

async fn write(
    plan: &Plan<'_>,
    lease: &mut Lease<'_>,
    decided: &[Decided<'_>],
) -> Result<(), Trouble> {
    let when = Moment::at_most(plan.batch.now);
    let mut sent = Vec::new();
    let mut inserted = Vec::new();
    for (group, decided) in plan.groups.iter().zip(decided) {
        let sql = &group.table.sql;
        for (sql, puts) in [
            (&sql.update, &decided.update),
            (&sql.insert, &decided.insert),
        ] {
            if puts.is_empty() {
                continue;
            }
            let writes: Vec<&Write> = puts.iter().map(|put| put.0).collect();
            let mut arrays = plan::puts(group.table, &writes);
            arrays.push(plan::versions(puts.iter().map(|put| put.1)));
            sent.push(Sent {
                table: &group.table.name,
                statement: lease.prepare(sql).await?,
                arrays,
                rows: Some(puts.len()),
            });
        }
        if !decided.delete.is_empty() {
            let keys = decided.delete.iter().map(|write| &write.key);
            sent.push(Sent {
                table: &group.table.name,
                statement: lease.prepare(&sql.delete).await?,
                arrays: vec![plan::keys(group.table, keys)],
                rows: Some(decided.delete.len()),
            });
        }
        if !decided.remember.is_empty() {
            let remember = &decided.remember;
            sent.push(Sent {
                table: &group.table.name,
                statement: lease.prepare(&sql.remember).await?,
                arrays: vec![
                    Box::new(group.table.name.as_str()),
                    plan::key_bytes(remember.iter().map(|write| write.0)),
                    plan::versions(remember.iter().map(|write| write.1)),
                    Box::new(when),
                ],
                rows: None,
            });
        }
        if !decided.once.is_empty() {
            let keys: Vec<&[u8]> = decided.once.iter().map(|mark| mark.0.as_bytes()).collect();
            sent.push(Sent {
                table: &group.table.name,
                statement: lease.prepare(&sql.remember).await?,
                arrays: vec![
                    Box::new(once_name(group.table)),
                    Box::new(keys),
                    plan::versions(decided.once.iter().map(|mark| mark.1)),
                    Box::new(when),
                ],
                rows: None,
            });
        }
        if !decided.insert.is_empty() {
            // Whoever made and deleted one of these since they were looked for is seen now.
            let name: Array<'_> = Box::new(group.table.name.as_str());
            let keys = plan::key_bytes(decided.insert.iter().map(|write| write.0));
            inserted.push((sent.len(), &decided.insert));
            sent.push(Sent {
                table: &group.table.name,
                statement: lease.prepare(&sql.remembered).await?,
                arrays: vec![keys, name],
                rows: None,
            });
        }
    }
    let lease = &*lease;
    let asked = sent.iter();
    let asked = asked.map(|sent| lease.ask(sent.statement.clone(), references(&sent.arrays)));
    let answers = pipeline(asked.collect()).await?;
    for (answer, sent) in answers.iter().zip(&sent) {
        if sent.rows.is_some_and(|rows| rows != answer.len()) {
            return Err(Trouble::Short(sent.table.to_owned()));
        }
    }
    for (index, writes) in inserted {
        for row in &answers[index] {
            if writes
                .get(place(row))
                .is_none_or(|write| write.1 <= version(row, 1))
            {
                return Err(Trouble::Race);
            }
        }
    }
    Ok(())
}

/// Answers of statements that are one transaction, under the shared lock of a table.
pub(super) async fn under_shared_lock(
    common: &Common,
    lease: &mut Lease<'_>,
    table: &Table,
    statements: Vec<(Statement, Parameters<'_>)>,
) -> Result<Vec<Vec<Row>>, Error> {
    let lock = lease.prepare(&common.lock_shared).await?;
    let tables = vec![table.lock];
    let lease = &*lease;
    let mut asked = vec![
        lease.tell(BEGIN),
        lease.ask(lock, vec![&LOCK_CLASS, &tables]),
    ];
    for (statement, parameters) in statements {
        asked.push(lease.ask(statement, parameters));
    }
    let mut answers = pipeline(asked).await?;
    lease.client().batch_execute("commit").await?;
    Ok(answers.split_off(2))
}
