//! Applying a batch to the store, and finding the one write in it that the store refuses.

use crate::port::{Batch, Outcome, Store, StoreError, Timestamp, Write};

/// What became of one write.
pub(crate) type Committed = Result<Outcome, StoreError>;

/// Applies `writes`, all in one transaction if the store takes them. If it refuses, the batch is halved until
/// the guilty writes stand alone (about `2 log2(n)` transactions for one of them), so that every other write
/// of the batch succeeds. A failure that is no refusal ends the search: what was not applied by then fails
/// with it.
///
/// One answer per write, in the order given.
pub(crate) async fn apply(store: &dyn Store, writes: Vec<Write>, now: Timestamp) -> Vec<Committed> {
    let mut answers: Vec<Option<Committed>> = vec![None; writes.len()];
    let batch = Batch { writes, now };
    // Places in `batch` that are still to be applied together.
    let mut parts: Vec<Vec<usize>> = Vec::new();
    match store.apply(&batch).await {
        Ok(outcomes) => return fit(outcomes, batch.writes.len()),
        Err(error) => split(
            &error,
            (0..batch.writes.len()).collect(),
            &mut parts,
            &mut answers,
        ),
    }
    while let Some(part) = parts.pop() {
        let writes = part
            .iter()
            .map(|place| batch.writes[*place].clone())
            .collect();
        match store.apply(&Batch { writes, now }).await {
            Ok(outcomes) => {
                let committed = fit(outcomes, part.len());
                for (place, answer) in part.into_iter().zip(committed) {
                    answers[place] = Some(answer);
                }
            }
            Err(error @ StoreError::Refused { .. }) => {
                split(&error, part, &mut parts, &mut answers);
            }
            Err(error) => {
                for place in part.iter().chain(parts.iter().flatten()) {
                    // Only what was sent can have an unknown outcome; the rest was not tried.
                    let untried =
                        !part.contains(place) && matches!(error, StoreError::Unknown { .. });
                    let error = match untried {
                        true => StoreError::unavailable("the store went away during a batch"),
                        false => error.clone(),
                    };
                    answers[*place] = Some(Err(error));
                }
                parts.clear();
            }
        }
    }
    let unanswered = || Err(StoreError::unavailable("the write was not tried"));
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(unanswered))
        .collect()
}

/// Decides what to do with a part that failed: try smaller ones, or answer.
fn split(
    error: &StoreError,
    mut part: Vec<usize>,
    parts: &mut Vec<Vec<usize>>,
    answers: &mut [Option<Committed>],
) {
    let StoreError::Refused { item, .. } = error else {
        for place in part {
            answers[place] = Some(Err(error.clone()));
        }
        return;
    };
    if let Some(item) = item.filter(|item| *item < part.len()) {
        let guilty = part.remove(item);
        answers[guilty] = Some(Err(error.clone()));
        if !part.is_empty() {
            parts.push(part);
        }
    } else if part.len() > 1 {
        let second = part.split_off(part.len() / 2);
        parts.push(second);
        parts.push(part);
    } else {
        for place in part {
            answers[place] = Some(Err(error.clone()));
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Change, Entry};
    use crate::key::Key;
    use crate::memory::MemoryStore;
    use crate::port::{
        BoxFuture, Capabilities, Guard, Resolution, RowKey, Swept, TableId, TableSpec, Ticket,
    };

    /// Refuses every batch that holds a value beginning with '!'.
    struct Picky {
        inner: MemoryStore,
        calls: AtomicUsize,
        tells: bool,
    }

    impl Store for Picky {
        fn name(&self) -> &'static str {
            "picky"
        }
        fn capabilities(&self) -> Capabilities {
            self.inner.capabilities()
        }
        fn open_table<'a>(
            &'a self,
            spec: &'a TableSpec,
        ) -> BoxFuture<'a, Result<TableId, StoreError>> {
            self.inner.open_table(spec)
        }
        fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
            self.inner.open_generation(at_least)
        }
        fn load<'a>(
            &'a self,
            keys: &'a [RowKey],
            now: Timestamp,
        ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
            self.inner.load(keys, now)
        }
        fn apply<'a>(
            &'a self,
            batch: &'a Batch,
        ) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let bad = |w: &Write| w.value().is_some_and(|v| v.starts_with(b"!"));
            match batch.writes.iter().position(bad) {
                Some(item) if self.tells => Box::pin(std::future::ready(Err(
                    StoreError::refused_item(item, "no"),
                ))),
                Some(_) => Box::pin(std::future::ready(Err(StoreError::refused(
                    Some("23514"),
                    "no",
                )))),
                None => self.inner.apply(batch),
            }
        }
        fn resolve(&self, ticket: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
            self.inner.resolve(ticket)
        }
        fn scan<'a>(
            &'a self,
            table: TableId,
            after: Option<&'a Key>,
            limit: usize,
            now: Timestamp,
        ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
            self.inner.scan(table, after, limit, now)
        }
        fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
            self.inner.count(table, now)
        }
        fn sweep(
            &self,
            table: TableId,
            now: Timestamp,
            remember: std::time::Duration,
            limit: usize,
        ) -> BoxFuture<'_, Result<Swept, StoreError>> {
            self.inner.sweep(table, now, remember, limit)
        }
        fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
            self.inner.ping()
        }
        fn close(&self) -> BoxFuture<'_, ()> {
            self.inner.close()
        }
    }

    fn run(bad: &[bool], tells: bool) -> (Vec<bool>, usize, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = Picky {
                inner: MemoryStore::new(),
                calls: AtomicUsize::new(0),
                tells,
            };
            let table = store.open_table(&TableSpec::named("t")).await.unwrap();
            let writes = bad.iter().enumerate().map(|(i, bad)| Write {
                table,
                key: Key::from(i.to_string()),
                change: Change::Put {
                    value: Bytes::from_static(if *bad { b"!" } else { b"ok" }),
                    expires_at: None,
                },
                guard: Guard::Always,
            });
            let now = Timestamp::from_millis(1);
            let answers = apply(&store, writes.collect(), now).await;
            let rows = store.count(table, now).await.unwrap();
            (
                answers.iter().map(Result::is_err).collect(),
                store.calls.into_inner(),
                rows,
            )
        })
    }

    proptest! {
        #[test]
        fn exactly_the_guilty_writes_fail(bad in prop::collection::vec(any::<bool>(), 1..80), tells: bool) {
            let (failed, _, rows) = run(&bad, tells);
            prop_assert_eq!(&failed, &bad);
            prop_assert_eq!(rows as usize, bad.iter().filter(|bad| !**bad).count());
        }
    }

    #[test]
    fn one_guilty_write_in_a_thousand_costs_about_twice_the_logarithm() {
        for guilty in [0, 1, 499, 500, 999] {
            let mut bad = vec![false; 1000];
            bad[guilty] = true;
            let (failed, calls, _) = run(&bad, false);
            assert_eq!(failed, bad);
            assert!(calls <= 1 + 2 * 10, "{calls} transactions");
        }
    }
}
