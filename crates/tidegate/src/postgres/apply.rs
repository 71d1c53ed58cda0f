//! The transaction of a batch. The front page of this folder tells the plain, the exact and the lone way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_core::port::{Batch, Guard, Outcome, StoreError, Ticket, Write};
use tidegate_core::{Key, Version};
use tokio_postgres::{Error, Row, Statement};

use super::connect::{Asked, Lease, Parameters, Pool, pipeline};
use super::error::{self, Trouble};
use super::exact::exact;
use super::moment::Moment;
use super::one_trip;
use super::plan::{self, Array, Group, Plain, Plan};
use super::session;
use super::settle::{Lost, settle};
use super::support::{LOCK_CLASS, Support};
use super::table::Table;

/// How hard a batch holds others off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
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
    pub(super) lock_shared: Arc<str>,
    pub(super) lock_alone: Arc<str>,
    /// `$1` a limit of time. Fails if the clock is past it.
    pub(super) in_time: Arc<str>,
    /// `$1` how many. Gives versions.
    pub(super) issue: Arc<str>,
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
            in_time: format!("select {}($1::timestamptz)", support.in_time).into(),
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
    let limit = plan.batch.commit_by.map(Moment::of_store);
    let work = async {
        let in_time = match limit {
            Some(_) => Some(lease.prepare(&common.in_time).await?),
            None => None,
        };
        let (ticket, outcomes) = match way {
            Way::OneTrip | Way::Plain => plain(plan, &mut lease).await?,
            Way::Exact | Way::Alone => exact(common, plan, &mut lease, way).await?,
        };
        Ok::<_, Trouble>((in_time, ticket, outcomes))
    };
    let done = tokio::time::timeout(pool.timeout(), work).await;
    let (in_time, ticket, outcomes) = match done {
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
    // The commit goes out behind the look at the clock, and not after its answer: if the clock is past the limit the
    // transaction has failed by then, and the commit undoes it. The first error is told, which is that of the look.
    let mut asked: Vec<Asked<'_>> = Vec::with_capacity(2);
    asked.extend(in_time.map(|in_time| lease.ask(in_time, vec![&limit])));
    asked.push(lease.tell("commit"));
    let commit = tokio::time::timeout(pool.timeout(), pipeline(asked)).await;
    let why = match commit {
        Ok(Ok(_)) => {
            lease.give_back();
            return Ok(outcomes);
        }
        Ok(Err(e)) => match e.as_db_error() {
            // Refused at the last moment: by the clock, or by a constraint that is checked only then.
            Some(answer) if !error::is_end(answer) => {
                lease.roll_back().await;
                return Err(e.into());
            }
            _ => e.to_string(),
        },
        Err(_) => "the database did not answer in time".into(),
    };
    let lost = Lost {
        ticket,
        life: lease.life().clone(),
        outcomes,
    };
    drop(lease);
    pool.forget_idle();
    settle(pool, common, plan, lost, &why)
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
pub(super) fn place(row: &Row) -> usize {
    usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX)
}

pub(super) const BEGIN: &str = "begin isolation level read committed read write";

/// The number of the transaction out of the answer to the lock.
pub(super) fn ticket(answer: &[Row]) -> Ticket {
    Ticket(
        answer
            .first()
            .map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()),
    )
}

/// The locks of a plan's tables, in one order everywhere.
pub(super) fn tables(plan: &Plan<'_>) -> Vec<i32> {
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
    table.keys.of(row, 0) == key.as_bytes()
}

/// Whether a flush was made over a row.
fn is_over_a_row(write: &Write) -> bool {
    matches!(write.guard, Guard::Flush { base: Some(base), .. } if base > Version::NONE)
}

/// The version that came with the guard.
fn brought(write: &Write) -> Version {
    write.guard.version().unwrap_or(Version::NONE)
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
