//! What became of a batch that was one statement: asked with a fence, and answered for certain.
//!
//! A statement that commits by itself cannot be taken back: once it is sent it may be committed at any time, also
//! long after its connection is gone, when the row it waits for is free. So each connection that sends such
//! statements has a row in `tidegate_session`, and each batch, as the last thing in its transaction, writes its
//! number there, unless the row is *closed*. If an answer is lost, another connection closes the row and reads the
//! number:
//!
//! - the number is that of the batch: it is committed, and the row tells its versions;
//! - it is a smaller one: the batch is not committed, and finds the row closed if it comes this far yet, which
//!   undoes it;
//! - the row is locked: the batch is at its commit;
//! - there is no row: it was removed after a day without use, or the server lost it (a standby took over that was
//!   behind, or it crashed and commits do not wait for the disk). A batch that finds no row writes nothing. Whether
//!   it was committed before is not known, but nothing more will change.
//!
//! Sessions have numbers drawn at random, so that a server that lost some does not give them out again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{Outcome, StoreError, Ticket};
use tokio_postgres::Error;

use super::apply::Common;
use super::connect::{Lease, Pool, pipeline};
use super::error::Trouble;
use super::settle::{asking_time, wait};

/// What a connection is known by.
#[derive(Default, Debug)]
pub(super) enum Session {
    /// Not registered.
    #[default]
    None,
    Open(Mark),
    /// The database does not let this user register.
    Refused,
}

/// A batch of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// Below `SESSION_END`.
    pub(super) session: i64,
    /// From one on, and at most `BATCHES_MAX`.
    pub(super) batch: i64,
}

/// The bit that tells a ticket of a session from the number of a transaction.
const TICKET: u64 = 1 << 63;
const BATCH_BITS: u32 = 16;
/// Sessions have the bits that are left.
const SESSION_END: u64 = TICKET >> BATCH_BITS;
/// Every batch leaves a dead version of the session's row. While others hold an old snapshot these pile up, and
/// each batch walks past them; a new row every so often keeps the way short.
const BATCHES_MAX: i64 = 10_000;
const _: () = assert!(BATCHES_MAX < 1 << BATCH_BITS);

impl Mark {
    /// Names the batch.
    pub(super) fn ticket(self) -> Ticket {
        Ticket(TICKET | (self.session.cast_unsigned() << BATCH_BITS) | self.batch.cast_unsigned())
    }

    /// The batch of a ticket, unless it is the number of a transaction.
    pub(super) fn of(ticket: Ticket) -> Option<Self> {
        let low = |bits: u64, end: u64| (bits & (end - 1)).cast_signed();
        (ticket.0 & TICKET != 0).then(|| Self {
            session: low(ticket.0 >> BATCH_BITS, SESSION_END),
            batch: low(ticket.0, 1 << BATCH_BITS),
        })
    }
}

/// Registers: `$1` a session to be removed, or nothing. Gives the number of the new one, or no row if it was drawn
/// before. Removes sessions that nobody used for a day.
pub(super) fn register(sessions: &str) -> String {
    format!(
        "with old as materialized (
             select id from {sessions} where used_at < now() - interval '1 day'
             limit 100 for update skip locked
         ), gone as (
             delete from {sessions} as s where s.id = $1::bigint or s.id in (select id from old)
         )
         insert into {sessions} (id) values (floor(random() * {SESSION_END})::bigint)
         on conflict do nothing returning id"
    )
}

/// Closes a session: `$1` its number. Gives the last batch and its versions.
pub(super) fn close(sessions: &str) -> String {
    format!(
        "update {sessions} set closed = true where id = $1::bigint returning batch, version, versions"
    )
}

/// The next batch of the connection, registered if it is not yet; nothing if it cannot be now.
pub(super) async fn next(common: &Common, lease: &mut Lease<'_>) -> Result<Option<Mark>, Error> {
    let former = match lease.session() {
        Session::Open(mark) if mark.batch < BATCHES_MAX => {
            mark.batch += 1;
            return Ok(Some(*mark));
        }
        Session::Open(mark) => Some(mark.session),
        Session::None => None,
        Session::Refused => return Ok(None),
    };
    let register = lease.prepare(&common.register).await?;
    let row = lease.client().query_opt(&register, &[&former]).await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let mark = Mark {
        session: row.try_get(0)?,
        batch: 1,
    };
    *lease.session() = Session::Open(mark);
    Ok(Some(mark))
}

/// What is behind the fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fenced {
    Committed(Versions),
    Aborted,
    Pending,
    Forgotten,
}

/// The versions of the rows of a batch; negative for those that are new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Versions {
    /// Of all of them, or of one of them.
    pub(super) low: i64,
    /// Of each, in the order of the batch, if they are not the same.
    pub(super) each: Option<Vec<i64>>,
}

impl Versions {
    /// What became of the write at `place`.
    pub(super) fn outcome(&self, place: usize) -> Outcome {
        let each = self.each.as_ref().and_then(|each| each.get(place));
        let version = *each.unwrap_or(&self.low);
        Outcome::Applied {
            version: Version::from_raw(version.unsigned_abs()),
            existed: version > 0,
        }
    }
}

/// Sees to it that a batch is not committed from now on, and tells whether it is. May be asked again.
pub(super) async fn fence(pool: &Pool, common: &Common, mark: Mark) -> Result<Fenced, StoreError> {
    // A batch that is at its commit holds the row.
    const BEGIN: &str =
        "begin isolation level read committed read write; set local lock_timeout = '1s'";
    let mut lease = pool.get().await?;
    let asked = async {
        let close = lease.prepare(&common.close).await?;
        let lease = &lease;
        pipeline(vec![
            lease.tell(BEGIN),
            lease.ask(close, vec![&mark.session]),
            lease.tell("commit"),
        ])
        .await
    };
    let asked = tokio::time::timeout(pool.timeout(), asked).await;
    let asked = asked.map_err(|_| StoreError::unavailable("no answer in time"))?;
    let answers = match asked {
        Ok(answers) => answers,
        Err(e) => {
            let is_locked = e.code().is_some_and(|code| code.code() == "55P03");
            let trouble = Trouble::from(e);
            if !matches!(trouble, Trouble::Lost(_)) {
                lease.roll_back().await;
            }
            return match is_locked {
                true => Ok(Fenced::Pending),
                false => Err(trouble.into()),
            };
        }
    };
    lease.give_back();
    let Some(row) = answers.get(1).and_then(|rows| rows.first()) else {
        return Ok(Fenced::Forgotten);
    };
    let read = || {
        let (batch, low): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let each = row.try_get(2)?;
        Ok::<_, Error>((batch, low, each))
    };
    let (batch, low, each) = read().map_err(Trouble::from)?;
    Ok(match (batch.cmp(&mark.batch), low) {
        (std::cmp::Ordering::Less, _) => Fenced::Aborted,
        (std::cmp::Ordering::Equal, Some(low)) => Fenced::Committed(Versions { low, each }),
        // A connection sends nothing more after an answer that was lost: not a session of ours.
        _ => Fenced::Forgotten,
    })
}

/// The answer was lost: asks for a while. Nothing if it cannot be told now.
pub(super) async fn settle(pool: &Pool, common: &Common, mark: Mark) -> Option<Fenced> {
    let asking = async {
        let mut pause = Duration::from_millis(10);
        loop {
            match fence(pool, common, mark).await {
                Ok(Fenced::Pending) | Err(_) => {}
                Ok(fenced) => return fenced,
            }
            wait(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    };
    tokio::time::timeout(asking_time(pool), asking).await.ok()
}

/// Batches that were sent, whose answer nobody took, and that are not fenced yet. They are fenced before the
/// next batch is sent, so that none of them comes after it.
#[derive(Default)]
pub(super) struct Adrift {
    marks: Mutex<Vec<Mark>>,
    /// Held while they are fenced.
    fencing: tokio::sync::Mutex<()>,
}

impl Adrift {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Mark>) -> T) -> T {
        act(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fences what is adrift. An error if the database does not answer.
    pub(super) async fn fence(&self, pool: &Pool, common: &Common) -> Result<(), StoreError> {
        if self.with(|marks| marks.is_empty()) {
            return Ok(());
        }
        let _fencing = self.fencing.lock().await;
        while let Some(mark) = self.with(|marks| marks.last().copied()) {
            match fence(pool, common, mark).await {
                Ok(Fenced::Pending) => {
                    let what = "a batch before this one is still being committed";
                    return Err(StoreError::unavailable(what));
                }
                Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                // Known, or never to be known.
                Ok(_) | Err(_) => self.with(|marks| marks.retain(|other| *other != mark)),
            }
        }
        Ok(())
    }
}

/// A batch that was sent: adrift if it is dropped before it is known what became of it.
pub(super) struct Sent<'a> {
    pool: &'a Pool,
    mark: Option<Mark>,
}

impl<'a> Sent<'a> {
    pub(super) fn new(pool: &'a Pool, mark: Mark) -> Self {
        Self {
            pool,
            mark: Some(mark),
        }
    }

    /// It is known.
    pub(super) fn known(mut self) {
        self.mark = None;
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark {
            self.pool.adrift.with(|marks| marks.push(mark));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_names_a_batch_and_no_transaction() {
        for (session, batch) in [
            (0, 1),
            (1, BATCHES_MAX),
            (SESSION_END.cast_signed() - 1, 1),
            (SESSION_END.cast_signed() - 1, (1 << BATCH_BITS) - 1),
        ] {
            let mark = Mark { session, batch };
            assert!(i64::try_from(mark.ticket().0).is_err());
            assert_eq!(Mark::of(mark.ticket()), Some(mark));
        }
        assert_eq!(Mark::of(Ticket(i64::MAX.cast_unsigned())), None);
        assert_eq!(Mark::of(Ticket(0)), None);
    }

    #[test]
    fn versions_are_of_each_row_or_of_all() {
        let applied = |version, existed| Outcome::Applied {
            version: Version::from_raw(version),
            existed,
        };
        let same = Versions { low: 7, each: None };
        assert_eq!(same.outcome(9), applied(7, true));
        let new = Versions {
            low: -7,
            each: None,
        };
        assert_eq!(new.outcome(0), applied(7, false));
        let differ = Versions {
            low: -7,
            each: Some(vec![9, -7]),
        };
        assert_eq!(differ.outcome(0), applied(9, true));
        assert_eq!(differ.outcome(1), applied(7, false));
    }
}
