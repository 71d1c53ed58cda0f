//! What the database offers to several nodes that share it: its clock and the bounds of its unfinished transactions,
//! the agreement on the settings of classes, and the changes of others out of the outbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_core::Version;
use tidegate_core::port::{
    BoxFuture, ClassSettings, Horizon, ManyNodes, NODE_LIVE, NODE_REMEMBERED, NodeId, Outside,
    OutsideChange, OutsideCursor, StoreError, TableId, disagreement,
};
use tokio_postgres::{Error, Row};

use super::apply::BEGIN;
use super::connect::pipeline;
use super::error::Trouble;
use super::moment::Moment;
use super::store::PostgresStore;
use super::support::{LOCK_CLASS, Support};

/// The second number of the advisory lock under which nodes register. No table has a number this small.
const LOCK_NODES: i32 = 1;

/// The statements.
pub(super) struct Statements {
    horizon: Arc<str>,
    lock: Arc<str>,
    /// Removes nodes that are dead for long.
    bury: Arc<str>,
    /// `$1` the node. Gives the settings of each other live one.
    others: Arc<str>,
    /// `$1` the node, its settings.
    register: Arc<str>,
    /// `$1` the node.
    leave: Arc<str>,
    /// `$1` and `$2` a transaction and a place in it, `$3` limit. Gives at least one row.
    outside: Arc<str>,
    /// `$1` limit. Removes what every node had time to read.
    pub(super) sweep: Arc<str>,
}

impl Statements {
    pub(super) fn of(support: &Support) -> Self {
        let (node, outbox, start) = (&support.node, &support.outbox, &support.outbox_start);
        let (live, remembered) = (NODE_LIVE.as_secs(), NODE_REMEMBERED.as_secs());
        Self {
            // `now()` is the beginning of the transaction, so the clock was read before the snapshot was taken; the
            // time of the statement, or of the clock, may be read after it. The next number is the one that is taken
            // here: the end of a snapshot (`pg_snapshot_xmax`) is one more than the greatest number that is
            // *finished*, and greater ones may be under way. The beginning is what it says: all below is finished.
            horizon: "select now(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
                case when not pg_is_in_recovery() then pg_current_xact_id()::text::bigint end"
                .into(),
            lock: format!("select pg_advisory_xact_lock({LOCK_CLASS}, {LOCK_NODES})").into(),
            bury: format!(
                "delete from {node}
                 where seen_at < clock_timestamp() - make_interval(secs => {remembered})"
            )
            .into(),
            others: format!(
                "select classes, names, settings from {node} where id <> $1::bigint
                 and seen_at >= clock_timestamp() - make_interval(secs => {live}) order by id"
            )
            .into(),
            register: format!(
                "insert into {node} (id, seen_at, classes, names, settings)
                 values ($1::bigint, clock_timestamp(), $2::text[], $3::text[], $4::text[])
                 on conflict (id) do update set seen_at = excluded.seen_at,
                 classes = excluded.classes, names = excluded.names, settings = excluded.settings"
            )
            .into(),
            leave: format!("delete from {node} where id = $1::bigint").into(),
            // All of one snapshot: what is below its beginning is finished and in it, so nothing appears there later.
            outside: format!(
                "select o.xid::text::bigint, o.id, o.table_name, o.key, o.version, o.at, h.history,
                     h.removed_xid::text::bigint, h.removed_id, h.lag, h.xmin::text::bigint
                 from (
                     select s.removed_xid, s.removed_id, pg_snapshot_xmin(pg_current_snapshot()) as xmin,
                     hashtextextended(
                         (select system_identifier::text from pg_control_system()) || ' '
                         || left(pg_walfile_name(pg_current_wal_lsn()), 8), 0
                     ) as history,
                     (extract(epoch from clock_timestamp() - (
                         select min(u.at) from {outbox} as u
                         where (u.xid, u.id) > ($1::bigint::text::xid8, $2::bigint)
                     )) * 1000000)::bigint as lag
                     from {start} as s
                 ) as h left join lateral (
                     select * from {outbox} as o
                     where (o.xid, o.id) > ($1::bigint::text::xid8, $2::bigint) and o.xid < h.xmin
                     order by o.xid, o.id limit $3::bigint
                 ) as o on true
                 order by o.xid, o.id"
            )
            .into(),
            // A transaction that was under way for long has old changes that nobody could read yet. So not the age of
            // a change counts, but that all could be read an hour ago.
            sweep: format!(
                "with due as materialized (
                     select bound from {start} where bound_at is null
                     or bound_at < clock_timestamp() - interval '1 hour' for update skip locked
                 ), old as materialized (
                     select o.xid, o.id from {outbox} as o join due on o.xid < due.bound
                     order by o.xid, o.id limit $1::bigint
                 ), gone as (
                     delete from {outbox} as o using old where o.xid = old.xid and o.id = old.id
                 ), last as (
                     select xid, id from old order by xid desc, id desc limit 1
                 ), full_page as (
                     select count(*) >= $1::bigint as more from old
                 )
                 update {start} as s set
                 removed_xid = coalesce(last.xid, s.removed_xid),
                 removed_id = coalesce(last.id, s.removed_id),
                 bound = case when full_page.more then s.bound
                     else pg_snapshot_xmin(pg_current_snapshot()) end,
                 bound_at = case when full_page.more then s.bound_at else clock_timestamp() end
                 from due cross join full_page left join last on true"
            )
            .into(),
        }
    }
}

/// Settings as three columns, by place.
fn columns(settings: &[ClassSettings]) -> [Vec<&str>; 3] {
    fn add<'a>(columns: &mut [Vec<&'a str>; 3], row: [&'a str; 3]) {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    let mut columns: [Vec<&str>; 3] = Default::default();
    for class in settings {
        if class.settings.is_empty() {
            add(&mut columns, [&class.class, "", ""]);
        }
        for (name, setting) in &class.settings {
            add(&mut columns, [&class.class, name, setting]);
        }
    }
    columns
}

/// The same backwards.
fn settings(row: &Row) -> Result<Vec<ClassSettings>, Error> {
    let (classes, names): (Vec<String>, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
    let values: Vec<String> = row.try_get(2)?;
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for ((class, name), value) in classes.into_iter().zip(names).zip(values) {
        let class = found.entry(class).or_default();
        if !name.is_empty() {
            class.insert(name, value);
        }
    }
    let found = found.into_iter().map(|(class, settings)| ClassSettings {
        class: class.into(),
        settings,
    });
    Ok(found.collect())
}

/// A number as the database keeps it: all bits, with a sign.
fn kept(node: NodeId) -> i64 {
    node.0.cast_signed()
}

impl PostgresStore {
    /// Registers, or tells in what another live node differs.
    async fn register(
        &self,
        node: NodeId,
        settings_here: &[ClassSettings],
    ) -> Result<Option<String>, StoreError> {
        let id = kept(node);
        let columns = columns(settings_here);
        let (columns, sql) = (&columns, &self.nodes);
        self.call(move |mut lease| async move {
            let done = async {
                let [lock, bury] = [
                    lease.prepare(&sql.lock).await?,
                    lease.prepare(&sql.bury).await?,
                ];
                let others = lease.prepare(&sql.others).await?;
                let register = lease.prepare(&sql.register).await?;
                let leave = lease.prepare(&sql.leave).await?;
                let lease = &lease;
                // Whoever has the lock sees everybody who had it before.
                let answers = pipeline(vec![
                    lease.tell(BEGIN),
                    lease.ask(lock, vec![]),
                    lease.ask(bury, vec![]),
                    lease.ask(others, vec![&id]),
                ]);
                let mut differs = None;
                for row in answers.await?.pop().unwrap_or_default() {
                    let there = settings(&row)?;
                    differs = differs.or_else(|| disagreement(settings_here, &there));
                }
                let change = match &differs {
                    Some(_) => lease.ask(leave, vec![&id]),
                    None => {
                        let [classes, names, values] = columns;
                        lease.ask(register, vec![&id, classes, names, values])
                    }
                };
                pipeline(vec![change, lease.tell("commit")]).await?;
                Ok(differs)
            };
            let done = done.await;
            (lease, done)
        })
        .await
    }

    fn outside_of(
        &self,
        rows: &[Row],
        after: OutsideCursor,
        limit: usize,
    ) -> Result<Outside, Error> {
        let number = |row: &Row, column| {
            let number: Option<i64> = row.try_get(column)?;
            Ok::<_, Error>(number.map(i64::unsigned_abs))
        };
        let tables = self.tables();
        let mut outside = Outside {
            changes: Vec::new(),
            next: after,
            more: rows.len() > limit,
            missed: false,
            lag: std::time::Duration::ZERO,
        };
        if let Some(row) = rows.first() {
            let history = row.try_get::<_, i64>(6)?.cast_unsigned();
            let oldest = number(row, 10)?.unwrap_or(0);
            let removed = (number(row, 7)?.unwrap_or(0), number(row, 8)?.unwrap_or(0));
            let lag: Option<i64> = row.try_get(9)?;
            let lag = u64::try_from(lag.unwrap_or(0)).unwrap_or(0);
            outside.lag = std::time::Duration::from_micros(lag);
            // A number that is not finished yet was read already: it was given out twice.
            let is_other =
                after.transaction > 0 && (after.history != history || after.transaction >= oldest);
            if is_other {
                outside.missed = true;
                outside.more = true;
                outside.next = OutsideCursor {
                    history,
                    ..OutsideCursor::default()
                };
                return Ok(outside);
            }
            outside.missed = removed > (after.transaction, after.place);
            outside.next.history = history;
        }
        for row in rows.iter().take(limit) {
            let Some(transaction) = number(row, 0)? else {
                continue;
            };
            outside.next.transaction = transaction;
            outside.next.place = number(row, 1)?.unwrap_or(0);
            let name: &str = row.try_get(2)?;
            let Some(table) = tables.iter().position(|table| table.name == name) else {
                continue;
            };
            let key: Option<&[u8]> = row.try_get(3)?;
            let at: Moment = row.try_get(5)?;
            outside.changes.push(OutsideChange {
                table: TableId(u16::try_from(table).unwrap_or(u16::MAX)),
                key: key.map(tidegate_core::Key::from),
                version: Version::from_raw(number(row, 4)?.unwrap_or(0)),
                at: at.store_time(),
            });
        }
        Ok(outside)
    }
}

impl ManyNodes for PostgresStore {
    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, StoreError>> {
        Box::pin(async move {
            let horizon = &self.nodes.horizon;
            let row = self.call(move |mut lease| async move {
                let done = async {
                    let horizon = lease.prepare(horizon).await?;
                    lease.client().query_one(&horizon, &[]).await
                };
                let done = done.await;
                (lease, done)
            });
            let row = row.await?;
            let read = || {
                let now: Moment = row.try_get(0)?;
                let (oldest, next): (i64, Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
                Ok::<_, Error>((now, oldest, next))
            };
            let (now, oldest, next) = read().map_err(Trouble::from)?;
            let Some(next) = next else {
                let standby = "the server is a standby and cannot tell what is under way";
                return Err(StoreError::unavailable(standby));
            };
            Ok(Horizon {
                now: now.store_time(),
                oldest: oldest.unsigned_abs(),
                next: next.unsigned_abs(),
            })
        })
    }

    fn agree<'a>(
        &'a self,
        node: NodeId,
        settings: &'a [ClassSettings],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match self.register(node, settings).await? {
                Some(what) => Err(StoreError::configuration(what)),
                None => Ok(()),
            }
        })
    }

    fn leave(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let (id, leave) = (&kept(node), &self.nodes.leave);
            let gone = self.call(move |mut lease| async move {
                let done = async {
                    let leave = lease.prepare(leave).await?;
                    lease.client().execute(&leave, &[id]).await
                };
                let done = done.await;
                (lease, done)
            });
            gone.await.map(drop)
        })
    }

    fn outside_changes(
        &self,
        after: Option<OutsideCursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Outside, StoreError>> {
        Box::pin(async move {
            let after = after.unwrap_or_default();
            let at = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            // One more than is told, to know whether there is more.
            let page = at(limit.saturating_add(1) as u64);
            let (xid, place) = (at(after.transaction), at(after.place));
            let (xid, place, page) = (&xid, &place, &page);
            let outside = &self.nodes.outside;
            let rows = self.call(move |mut lease| async move {
                let done = async {
                    let outside = lease.prepare(outside).await?;
                    lease.client().query(&outside, &[xid, place, page]).await
                };
                let done = done.await;
                (lease, done)
            });
            let outside = self.outside_of(&rows.await?, after, limit);
            outside.map_err(|e| Trouble::from(e).into())
        })
    }
}
