//! The exact way of a batch: rows are locked, the outcome of every write is decided here as the reference does
//! it, then written. Additions are made here too, of what the locked rows hold.

use tidegate_core::port::{Guard, Known, Outcome, StoreError, Ticket, Write};
use tidegate_core::{Change, Entry, Key, SumError, Version};
use tokio_postgres::{Row, Statement};

use super::apply::{BEGIN, Common, Way, place, references, tables, ticket, version};
use super::connect::{Asked, Lease, pipeline};
use super::error::Trouble;
use super::moment::Moment;
use super::plan::{self, Array, Group, Plan};
use super::support::LOCK_CLASS;
use super::table::{Keys, Table};

/// What is to be written to one table.
#[derive(Default)]
struct Decided<'a> {
    insert: Vec<(&'a Write, Version)>,
    update: Vec<(&'a Write, Version)>,
    delete: Vec<&'a Write>,
    remember: Vec<(&'a Write, Version)>,
    /// Deletes that found no row, where others may be about to make one.
    unseen: Vec<(&'a Write, Version)>,
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
pub(super) async fn exact(
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
            *slot = Some((Version::of_row(row.get(1)), row.get::<_, bool>(2)));
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
                } else if group.table.spec.outbox {
                    decided.unseen.push((write, version));
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
    keys: Keys,
    statement: Statement,
    arrays: Vec<Array<'a>>,
    rows: Option<usize>,
    /// The keys of the rows, sorted, if it gives these.
    puts: &'a [(&'a Write, Version)],
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
                keys: group.table.keys,
                statement: lease.prepare(sql).await?,
                arrays,
                rows: Some(puts.len()),
                puts,
            });
        }
        if !decided.delete.is_empty() {
            let keys = decided.delete.iter().map(|write| &write.key);
            sent.push(Sent {
                table: &group.table.name,
                keys: group.table.keys,
                statement: lease.prepare(&sql.delete).await?,
                arrays: vec![plan::keys(group.table, keys)],
                rows: Some(decided.delete.len()),
                puts: &[],
            });
        }
        if !decided.remember.is_empty() {
            let remember = &decided.remember;
            sent.push(Sent {
                table: &group.table.name,
                keys: group.table.keys,
                statement: lease.prepare(&sql.remember).await?,
                arrays: vec![
                    Box::new(group.table.name.as_str()),
                    plan::key_bytes(remember.iter().map(|write| write.0)),
                    plan::versions(remember.iter().map(|write| write.1)),
                    Box::new(when),
                ],
                rows: None,
                puts: &[],
            });
        }
        if !decided.unseen.is_empty() {
            let unseen = &decided.unseen;
            sent.push(Sent {
                table: &group.table.name,
                keys: group.table.keys,
                statement: lease.prepare(&sql.unseen).await?,
                arrays: vec![
                    Box::new(group.table.name.as_str()),
                    plan::key_bytes(unseen.iter().map(|write| write.0)),
                    plan::versions(unseen.iter().map(|write| write.1)),
                ],
                rows: None,
                puts: &[],
            });
        }
        if !decided.once.is_empty() {
            let keys: Vec<&[u8]> = decided.once.iter().map(|mark| mark.0.as_bytes()).collect();
            sent.push(Sent {
                table: &group.table.name,
                keys: group.table.keys,
                statement: lease.prepare(&sql.remember).await?,
                arrays: vec![
                    Box::new(once_name(group.table)),
                    Box::new(keys),
                    plan::versions(decided.once.iter().map(|mark| mark.1)),
                    Box::new(when),
                ],
                rows: None,
                puts: &[],
            });
        }
        if !decided.insert.is_empty() {
            // Whoever made and deleted one of these since they were looked for is seen now.
            let name: Array<'_> = Box::new(group.table.name.as_str());
            let keys = plan::key_bytes(decided.insert.iter().map(|write| write.0));
            inserted.push((sent.len(), &decided.insert));
            sent.push(Sent {
                table: &group.table.name,
                keys: group.table.keys,
                statement: lease.prepare(&sql.remembered).await?,
                arrays: vec![keys, name],
                rows: None,
                puts: &[],
            });
        }
    }
    let lease = &*lease;
    let asked = sent.iter();
    let asked = asked.map(|sent| lease.ask(sent.statement.clone(), references(&sent.arrays)));
    let answers = pipeline(asked.collect()).await?;
    for (answer, sent) in answers.iter().zip(&sent) {
        // A trigger may leave a row out, or give it another key.
        let is_short = sent.rows.is_some_and(|rows| rows != answer.len());
        let is_put = |row: &Row| {
            let key = sent.keys.of(row, 0);
            let found = sent
                .puts
                .binary_search_by(|put| put.0.key.as_bytes().cmp(key));
            found.is_ok()
        };
        if is_short || !sent.puts.is_empty() && !answer.iter().all(is_put) {
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
