//! Applying a batch to the store, and finding the one write in it that the store refuses.
//!
//! A refused batch is cut into quarters that are tried at the same time: for one guilty write that is at most
//! about `2 log2(n)` transactions more, as many as by halves, in half as many steps. So the others of the
//! batch are in the store after little more than twice the time.

use futures_util::future::join_all;

use crate::port::{Batch, Outcome, Store, StoreError, StoreTime, Timestamp, Write};

/// What became of one write.
pub(crate) type Committed = Result<Outcome, StoreError>;

/// A refused part is cut into so many, and so many are tried at the same time.
const PARTS: usize = 4;
/// So many guilty writes the store may name one by one; after that parts are cut although it names them, so
/// that many guilty ones do not cost a transaction of the whole batch each.
const NAMED_MAX: usize = 4;

/// Applies `writes`, all in one transaction if the store takes them. If it refuses, the guilty writes are
/// isolated, so that every other write of the batch succeeds. A failure that is no refusal ends the search:
/// what was not applied by then fails with it.
///
/// Every transaction of it has the same limit of time, if any ([`Batch::commit_by`]). One answer per write, in the
/// order given.
pub(crate) async fn apply(
    store: &dyn Store,
    writes: Vec<Write>,
    now: Timestamp,
    commit_by: Option<StoreTime>,
) -> Vec<Committed> {
    let batch = Batch::new(writes, now).commit_by(commit_by);
    let error = match store.apply(&batch).await {
        Ok(outcomes) => return fit(outcomes, batch.writes.len()),
        Err(error) => error,
    };
    let mut search = Search {
        answers: vec![None; batch.writes.len()],
        parts: Vec::new(),
        named: 0,
        ended: None,
    };
    search.failed((0..batch.writes.len()).collect(), &error);
    while !search.parts.is_empty() {
        let first = search.parts.len().saturating_sub(PARTS);
        let parts = search.parts.split_off(first);
        let tries = parts.into_iter().map(|part| {
            let writes = part.iter().map(|place| batch.writes[*place].clone());
            let batch = Batch::new(writes.collect(), now).commit_by(commit_by);
            async move { (part, store.apply(&batch).await) }
        });
        for (part, answer) in join_all(tries).await {
            match answer {
                Ok(outcomes) => search.applied(&part, outcomes),
                Err(error) => search.failed(part, &error),
            }
        }
        search.end_if_away();
    }
    let unanswered = || Err(StoreError::unavailable("the write was not tried"));
    search
        .answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(unanswered))
        .collect()
}

/// Where the search for the guilty writes of a batch stands. Parts are places in the batch.
struct Search {
    answers: Vec<Option<Committed>>,
    /// What is still to be tried.
    parts: Vec<Vec<usize>>,
    /// How many guilty writes the store has named.
    named: usize,
    /// The store went away: what was not tried by then has this error.
    ended: Option<StoreError>,
}

impl Search {
    fn applied(&mut self, part: &[usize], outcomes: Vec<Outcome>) {
        let committed = fit(outcomes, part.len());
        for (place, answer) in part.iter().zip(committed) {
            self.answers[*place] = Some(answer);
        }
    }

    /// Decides what to do with a part that failed: try smaller ones, or answer.
    fn failed(&mut self, mut part: Vec<usize>, error: &StoreError) {
        let StoreError::Refused { item, .. } = error else {
            return self.give_up(&part, error);
        };
        let mut cut = true;
        if let Some(item) = item.filter(|item| *item < part.len()) {
            let guilty = part.remove(item);
            self.answers[guilty] = Some(Err(error.clone()));
            self.named += 1;
            cut = self.named > NAMED_MAX;
        } else if let [guilty] = part[..] {
            self.answers[guilty] = Some(Err(error.clone()));
            return;
        }
        if part.is_empty() {
            return;
        }
        let size = match cut {
            true => part.len().div_ceil(PARTS),
            false => part.len(),
        };
        self.parts.extend(part.chunks(size).map(<[usize]>::to_vec));
    }

    /// The store went away: what was sent has its error, and what waits will not be tried.
    fn give_up(&mut self, part: &[usize], error: &StoreError) {
        for place in part {
            self.answers[*place] = Some(Err(error.clone()));
        }
        // Only what was sent can have an unknown outcome.
        self.ended = Some(match error {
            StoreError::Unknown { .. } => {
                StoreError::unavailable("the store went away during a batch")
            }
            other => other.clone(),
        });
    }

    fn end_if_away(&mut self) {
        if let Some(error) = &self.ended {
            for place in std::mem::take(&mut self.parts).into_iter().flatten() {
                self.answers[place] = Some(Err(error.clone()));
            }
        }
    }
}

/// A store that answers another number of outcomes than writes has broken its contract after a commit:
/// nothing is known.
fn fit(outcomes: Vec<Outcome>, len: usize) -> Vec<Committed> {
    if outcomes.len() == len {
        return outcomes.into_iter().map(Ok).collect();
    }
    let error = StoreError::unknown(
        None,
        "the store answered another number of outcomes than writes",
    );
    vec![Err(error); len]
}

#[cfg(test)]
mod tests;
