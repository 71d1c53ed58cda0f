//! The commonest batch in one round trip: puts of one table, unguarded.
//!
//! Such a batch is one statement that is a transaction of its own: it locks, numbers, writes, checks, marks its
//! session and commits. There is nothing to be sent after it, so that the locks of its rows are not held while an
//! answer goes to the client and the commit comes back, and one row is answered in place of one for each key.
//! Its very last step is to look at the clock, if the batch has a limit of time.
//!
//! Whatever is not as expected (an expired row, a new one whose deletion is newer, a session that is closed) undoes
//! the statement, and the batch is taken the plain way, in which the client decides before it commits.
//!
//! An answer that is lost leaves a statement that may still commit. `session` tells how that is found out.

use std::sync::atomic::Ordering;

use tidegate_core::port::{Outcome, StoreError};
use tokio_postgres::{Error, Row};

use super::apply::{Common, references};
use super::connect::{Lease, Parameters, Pool};
use super::error::Trouble;
use super::moment::Moment;
use super::plan::{self, Group, Plain, Plan};
use super::session::{self, Fenced, Mark, Sent, Session, Versions};

/// For so many batches of a table this way is not tried after it was in vain: a try in vain costs about as much as
/// two that succeed save, and a table in which rows often expire has many of them.
const PLAIN_BATCHES: u32 = 8;

/// What the statement fails with if its session is closed or gone.
const NO_SESSION: &str = "TG002";

/// Whether a batch is likely to fit.
pub(super) fn fits(plan: &Plan<'_>) -> bool {
    let [group] = &plan.groups[..] else {
        return false;
    };
    if group.plain() != Some(Plain::Always) {
        return false;
    }
    // A guess, of which it does not matter if two batches take the same.
    let plain_batches = group.table.plain_batches.load(Ordering::Relaxed);
    if plain_batches > 0 {
        let left = &group.table.plain_batches;
        left.store(plain_batches - 1, Ordering::Relaxed);
    }
    plain_batches == 0
}

/// It was in vain.
fn give_up(group: &Group<'_>) {
    let left = &group.table.plain_batches;
    left.store(PLAIN_BATCHES, Ordering::Relaxed);
}

/// Sends the batch and tells what became of it, for certain unless the database cannot be asked. A race means that
/// nothing was written and that the plain way will tell why.
pub(super) async fn put(
    pool: &Pool,
    common: &Common,
    plan: &Plan<'_>,
    mut lease: Lease<'_>,
) -> Result<Vec<Outcome>, Trouble> {
    let Some(group) = plan.groups.first() else {
        return Ok(Vec::new());
    };
    let prepared = async {
        let Some(mark) = register(common, &mut lease).await? else {
            return Ok(None);
        };
        let statement = lease.prepare(&group.table.sql.put_in_one_trip).await;
        Ok(Some((mark, statement.map_err(Trouble::from)?)))
    };
    let late = || StoreError::unavailable("the database did not answer in time");
    let (mark, statement) = match tokio::time::timeout(pool.timeout(), prepared).await {
        Ok(Ok(Some(prepared))) => prepared,
        // Nothing was sent yet.
        Ok(Err(Trouble::Lost(error))) => return Err(Trouble::Lost(error)),
        Ok(Ok(None) | Err(_)) => {
            give_up(group);
            lease.give_back();
            return Err(Trouble::Race);
        }
        Err(_) => return Err(Trouble::Failed(late())),
    };
    let writes: Vec<_> = group.writes.iter().map(|write| write.1).collect();
    let arrays = plan::puts(group.table, &writes);
    let now = Moment::at_most(plan.batch.now).end();
    let mut parameters: Parameters<'_> = vec![&now];
    parameters.extend(references(&arrays));
    parameters.push(&mark.session);
    parameters.push(&mark.batch);
    let limit = plan.batch.commit_by.map(Moment::of_store);
    parameters.push(&limit);

    let sent = Sent::new(pool, mark);
    let answer = lease.client().query_one(&statement, &parameters);
    let trouble = match tokio::time::timeout(pool.timeout(), answer).await {
        Ok(answer) => match answer.and_then(|row| versions(&row)) {
            Ok(versions) => {
                sent.known();
                lease.give_back();
                return Ok(outcomes(plan, group, &versions));
            }
            Err(e) => {
                let no_session = e.code().is_some_and(|code| code.code() == NO_SESSION);
                match Trouble::from(e) {
                    // It was undone: by what did not fit, or by an error that the plain way will meet too.
                    Trouble::Race
                    | Trouble::Short(_)
                    | Trouble::Failed(StoreError::Refused { .. }) => {
                        sent.known();
                        give_up(group);
                        if no_session {
                            *lease.session() = Session::None;
                        }
                        lease.give_back();
                        return Err(Trouble::Race);
                    }
                    // It was undone, and the plain way would come later still.
                    Trouble::Failed(late @ StoreError::Late { .. }) => {
                        sent.known();
                        lease.give_back();
                        return Err(Trouble::Failed(late));
                    }
                    trouble => trouble,
                }
            }
        },
        Err(_) => Trouble::Failed(late()),
    };
    drop(lease);
    // Other connections may be to a server that is not there any more.
    pool.forget_idle();
    match session::settle(pool, common, mark).await {
        Some(Fenced::Committed(versions)) => {
            sent.known();
            Ok(outcomes(plan, group, &versions))
        }
        Some(Fenced::Aborted) => {
            sent.known();
            Err(trouble)
        }
        Some(Fenced::Forgotten | Fenced::Pending) | None => {
            let why = StoreError::from(trouble);
            let unknown = format_args!("the answer to the batch was lost: {why}");
            let unknown = StoreError::unknown(Some(mark.ticket()), unknown);
            Err(Trouble::Failed(unknown))
        }
    }
}

/// The mark of this batch. Nothing if the database does not let this connection have one.
async fn register(common: &Common, lease: &mut Lease<'_>) -> Result<Option<Mark>, Trouble> {
    match session::next(common, lease).await.map_err(Trouble::from) {
        Ok(mark) => Ok(mark),
        Err(Trouble::Lost(error)) => Err(Trouble::Lost(error)),
        Err(_) => {
            *lease.session() = Session::Refused;
            Ok(None)
        }
    }
}

fn versions(row: &Row) -> Result<Versions, Error> {
    Ok(Versions {
        low: row.try_get(0)?,
        each: row.try_get(1)?,
    })
}

fn outcomes(plan: &Plan<'_>, group: &Group<'_>, versions: &Versions) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Changed; plan.batch.writes.len()];
    for (place, (item, _)) in group.writes.iter().enumerate() {
        outcomes[*item] = versions.outcome(place);
    }
    outcomes
}
