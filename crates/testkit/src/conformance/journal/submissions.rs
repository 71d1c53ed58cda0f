//! Appends in two steps, a place at once and durable later; and records that are moved to the end.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_core::port::{Journal, JournalError, Lsn};

use super::{Subject, append, check_filled, page, record};

/// Submits as an owner does who may wait between two tries.
async fn submit(journal: &dyn Journal, records: &[Bytes]) -> Lsn {
    loop {
        let refused = match journal.submit(records) {
            Ok(last) => return last,
            Err(JournalError::Busy { .. }) => journal.room(records).await,
            Err(error) => Err(error),
        };
        if let Err(error) = refused {
            panic!("a submission is refused: {error}");
        }
    }
}

async fn wait(journal: &dyn Journal, last: Lsn) {
    if let Err(error) = journal.wait(last).await {
        panic!("a wait fails: {error}");
    }
}

pub(super) async fn a_submission_has_its_place_at_once(subject: Subject) {
    let journal = subject.open().await;
    let tail = journal.tail();
    assert_eq!(submit(&*journal, &[]).await, Lsn(tail.0 - 1));
    assert_eq!(submit(&*journal, &[record(1)]).await, tail);
    let two = [record(2), record(3)];
    assert_eq!(submit(&*journal, &two).await, Lsn(tail.0 + 2));
    wait(&*journal, Lsn(tail.0 + 2)).await;
    assert_eq!(journal.tail(), Lsn(tail.0 + 3));
    assert_eq!(append(&*journal, vec![record(4)]).await, Lsn(tail.0 + 3));
    check_filled(&*journal, 1, 4).await;
    journal.close().await;
}

pub(super) async fn a_wait_is_for_all_that_came_before(subject: Subject) {
    let journal = subject.open().await;
    for number in 1..=50 {
        submit(&*journal, &[record(number)]).await;
    }
    wait(&*journal, Lsn(50)).await;
    assert_eq!(journal.tail(), Lsn(51));
    // Again, and for what came earlier.
    for lsn in [50, 1, 25] {
        wait(&*journal, Lsn(lsn)).await;
    }
    let journal = subject.reopen(journal).await;
    check_filled(&*journal, 1, 50).await;
    journal.close().await;
}

pub(super) async fn a_dropped_wait_changes_nothing(subject: Subject) {
    let journal = subject.open().await;
    let last = submit(&*journal, &[record(1)]).await;
    drop(journal.wait(last));
    let waiting = {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { journal.wait(last).await })
    };
    tokio::task::yield_now().await;
    waiting.abort();
    let _ = waiting.await;
    wait(&*journal, submit(&*journal, &[record(2)]).await).await;
    let journal = subject.reopen(journal).await;
    check_filled(&*journal, 1, 2).await;
    journal.close().await;
}

pub(super) async fn submissions_keep_the_order_of_the_calls(subject: Subject) {
    let journal = subject.open().await;
    // The owner's lock: the number is drawn and the record submitted under it.
    let next = Arc::new(Mutex::new(1));
    let tasks = (0..8).map(|_| {
        let (journal, next) = (Arc::clone(&journal), Arc::clone(&next));
        tokio::spawn(async move {
            for _ in 0..25 {
                let last = loop {
                    let (submitted, records) = {
                        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                        let records = [record(*next)];
                        let submitted = journal.submit(&records);
                        if submitted.is_ok() {
                            *next += 1;
                        }
                        (submitted, records)
                    };
                    match submitted {
                        Ok(last) => break last,
                        Err(JournalError::Busy { .. }) => {
                            let room = journal.room(&records).await;
                            assert!(room.is_ok(), "{room:?}");
                        }
                        Err(error) => panic!("a submission is refused: {error}"),
                    }
                };
                wait(&*journal, last).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap_or_else(|error| panic!("a task failed: {error}"));
    }
    check_filled(&*journal, 1, 200).await;
    journal.close().await;
}

pub(super) async fn a_closed_journal_refuses_submissions(subject: Subject) {
    let journal = subject.open().await;
    let last = submit(&*journal, &[record(1)]).await;
    // What was submitted is finished.
    journal.close().await;
    wait(&*journal, last).await;
    let refused = journal.submit(&[record(2)]);
    assert!(
        matches!(refused, Err(JournalError::Unavailable { .. })),
        "{refused:?}"
    );
    let journal = subject.reopen(journal).await;
    check_filled(&*journal, 1, 1).await;
    journal.close().await;
}

/// As an owner does that is asked by `crowded_before`; it may do so at any time.
pub(super) async fn a_record_that_is_moved_outlives_the_trim(subject: Subject) {
    let journal = subject.open().await;
    let mut needed = append(&*journal, vec![record(0)]).await;
    for number in 1..=60 {
        append(&*journal, vec![record(number)]).await;
        let asked = journal.crowded_before();
        assert!(asked.is_none_or(|before| before <= journal.tail()));
        if number % 10 == 0 || asked.is_some() {
            needed = append(&*journal, vec![record(0)]).await;
        }
        if let Err(error) = journal.trim(needed).await {
            panic!("a trim fails: {error}");
        }
    }
    let journal = subject.reopen(journal).await;
    let found = page(&*journal, needed, 1).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].lsn, &found[0].record), (needed, &record(0)));
    journal.close().await;
}
