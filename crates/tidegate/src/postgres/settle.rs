//! What became of a transaction whose commit was not answered.

use std::time::Duration;

use tidegate_core::Change;
use tidegate_core::port::{Guard, Outcome, Resolution, StoreError, Ticket};

use super::apply::{self, Common};
use super::connect::{Life, Pool, pipeline};
use super::error::Trouble;
use super::moment::Moment;
use super::plan::{self, Plan};
use super::session::{self, Fenced, Mark};

/// A transaction whose commit was not answered.
pub(super) struct Lost {
    pub(super) ticket: Ticket,
    /// Of the server that gave the ticket out.
    pub(super) life: Life,
    /// What it comes to if it is committed.
    pub(super) outcomes: Vec<Outcome>,
}

/// The answer to the commit was lost: asks what became of the transaction, for a while.
pub(super) async fn settle(
    pool: &Pool,
    common: &Common,
    plan: &Plan<'_>,
    lost: Lost,
    why: &str,
) -> Result<Vec<Outcome>, StoreError> {
    let unknown = || {
        let what = format_args!("the answer to the commit was lost: {why}");
        StoreError::unknown(Some(lost.ticket), what)
    };
    let failed = || StoreError::unavailable(format_args!("the commit failed: {why}"));
    let asking = async {
        let mut pause = Duration::from_millis(10);
        loop {
            match ask(pool, common, lost.ticket).await {
                Ok((Resolution::Committed, life)) if life.is_same(&lost.life) => return Ok(()),
                // The number may be another transaction's by now.
                Ok((Resolution::Committed, _)) => match may_be_there(pool, plan, &lost).await {
                    Ok(true) => return Err(unknown()),
                    Ok(false) => return Err(failed()),
                    Err(_) => {}
                },
                Ok((Resolution::Aborted, _)) => return Err(failed()),
                Ok((Resolution::Pending | Resolution::Forgotten, _)) | Err(_) => {}
            }
            wait(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    };
    let settled = tokio::time::timeout(asking_time(pool), asking).await;
    settled.unwrap_or_else(|_| Err(unknown()))?;
    Ok(lost.outcomes)
}

/// How long it is asked what became of a batch before its caller is told that it is unknown.
pub(super) fn asking_time(pool: &Pool) -> Duration {
    pool.timeout().min(Duration::from_secs(5))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a pause between questions to a real server, in an adapter that no simulation runs"
)]
pub(super) async fn wait(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// Whether the batch may be there, by one of its rows. A server that crashed before it had written anything of a
/// transaction to disk gives its number and its versions to another one. So a row that has the version, or a newer one,
/// proves nothing; one that is older does.
async fn may_be_there(pool: &Pool, plan: &Plan<'_>, lost: &Lost) -> Result<bool, StoreError> {
    for group in &plan.groups {
        for (item, write) in &group.writes {
            let Some(version) = lost.outcomes[*item].version() else {
                continue;
            };
            let mut lease = pool.get().await?;
            let asked = async {
                let (lock, remembered) = (&group.table.sql.lock, &group.table.sql.remembered);
                let keys = plan::keys(group.table, std::iter::once(&write.key));
                let bytes = plan::key_bytes(std::iter::once(*write));
                let now = Moment::at_most(plan.batch.now).end();
                let lock = lease.prepare(lock).await?;
                let remembered = lease.prepare(remembered).await?;
                let name = &group.table.name;
                pipeline(vec![
                    lease.ask(lock, vec![&*keys, &now]),
                    lease.ask(remembered, vec![&*bytes, name]),
                ])
                .await
            };
            let found = tokio::time::timeout(pool.timeout(), asked).await;
            let found = found.map_err(|_| StoreError::unavailable("no answer in time"))?;
            let found = found.map_err(|e| StoreError::from(Trouble::from(e)))?;
            lease.give_back();
            let unremembered = matches!(
                (&write.change, write.guard),
                (Change::Delete, Guard::Always)
            );
            if unremembered && found.iter().all(Vec::is_empty) {
                return Ok(true);
            }
            return Ok(found
                .iter()
                .flatten()
                .any(|row| apply::version(row, 1) >= version));
        }
    }
    // It wrote nothing.
    Ok(true)
}

/// What became of a batch.
pub(super) async fn resolve(
    pool: &Pool,
    common: &Common,
    ticket: Ticket,
) -> Result<Resolution, StoreError> {
    if let Some(mark) = Mark::of(ticket) {
        return Ok(match session::fence(pool, common, mark).await? {
            Fenced::Committed(_) => Resolution::Committed,
            Fenced::Aborted => Resolution::Aborted,
            Fenced::Pending => Resolution::Pending,
            Fenced::Forgotten => Resolution::Forgotten,
        });
    }
    Ok(ask(pool, common, ticket).await?.0)
}

/// What became of a transaction, by its number alone; and the life of the server that says so.
async fn ask(
    pool: &Pool,
    common: &Common,
    ticket: Ticket,
) -> Result<(Resolution, Life), StoreError> {
    let mut lease = pool.get().await?;
    let life = lease.life().clone();
    let Ok(number) = i64::try_from(ticket.0) else {
        lease.give_back();
        return Ok((Resolution::Forgotten, life));
    };
    let asked = async {
        let status = lease.prepare(&common.status).await?;
        lease.client().query_one(&status, &[&number]).await
    };
    let answer = tokio::time::timeout(pool.timeout(), asked).await;
    let answer = answer.map_err(|_| StoreError::unavailable("no answer in time"))?;
    let resolution = match answer {
        Ok(row) => match row.get::<_, Option<&str>>(0) {
            Some("committed") => Resolution::Committed,
            Some("aborted") => Resolution::Aborted,
            Some(_) => Resolution::Pending,
            None => Resolution::Forgotten,
        },
        // In the future: the server crashed and knows nothing of it.
        Err(e) if e.code().is_some_and(|code| code.code() == "22023") => Resolution::Aborted,
        Err(e) => return Err(Trouble::from(e).into()),
    };
    lease.give_back();
    Ok((resolution, life))
}
