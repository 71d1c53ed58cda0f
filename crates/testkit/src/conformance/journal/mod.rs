//! What every [`Journal`] must do, as named cases.
//!
//! An adapter's author writes one test: a function that makes a [`Subject`], an empty journal that can be
//! opened again after it was closed. It is called once per case, with the name of the case, from which a
//! folder or a table can be named. A case that fails panics and names itself. The reference,
//! `tidegate_core::memory::MemoryJournal`, passes all of it.
//!
//! ```
//! use std::sync::{Arc, Mutex, PoisonError};
//! use tidegate_core::memory::MemoryJournal;
//! use tidegate_core::port::Journal;
//! use tidegate_testkit::conformance::journal::{Subject, run};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! run(|_case| async {
//!     let journal = MemoryJournal::new();
//!     Subject::new(move || {
//!         let opened: Arc<dyn Journal> = Arc::new(journal.clone());
//!         async { Ok(opened) }
//!     })
//! })
//! .await;
//! # });
//! ```
//!
//! What a crash leaves is not tried here: how to crash is the adapter's to know. Its author should try at
//! least that every acknowledged record is there after a kill, and that a torn tail is cut.

mod submissions;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tidegate_core::port::{BoxFuture, Journal, JournalError, Lsn, Replayed};

use submissions::{
    a_closed_journal_refuses_submissions, a_dropped_wait_changes_nothing,
    a_record_that_is_moved_outlives_the_trim, a_submission_has_its_place_at_once,
    a_wait_is_for_all_that_came_before, submissions_keep_the_order_of_the_calls,
};

/// A journal to be tried, empty when it is opened first.
pub struct Subject {
    open: Box<dyn Fn() -> BoxFuture<'static, Opened> + Send + Sync>,
}

/// What opening a journal gives.
pub type Opened = Result<Arc<dyn Journal>, JournalError>;

impl Subject {
    /// A journal that `open` opens. It is called again only after the journal it returned was closed and
    /// dropped, and must then find the same records.
    pub fn new<Open, Opening>(open: Open) -> Self
    where
        Open: Fn() -> Opening + Send + Sync + 'static,
        Opening: Future<Output = Opened> + Send + 'static,
    {
        Self {
            open: Box::new(move || Box::pin(open())),
        }
    }

    async fn open(&self) -> Arc<dyn Journal> {
        match (self.open)().await {
            Ok(journal) => journal,
            Err(error) => panic!("the journal does not open: {error}"),
        }
    }

    /// Closes the journal and opens it again.
    async fn reopen(&self, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        journal.close().await;
        drop(journal);
        self.open().await
    }
}

/// One thing a journal must do.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: lower case, underscores.
    pub name: &'static str,
    try_on: fn(Subject) -> BoxFuture<'static, ()>,
}

impl Case {
    /// Tries it. The subject is used up.
    ///
    /// # Panics
    /// When the journal does not do it.
    pub async fn try_on(&self, subject: Subject) {
        (self.try_on)(subject).await;
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$(Case { name: stringify!($name), try_on: |subject| Box::pin($name(subject)) }),*]
    };
}

/// All cases, in reading order.
pub const CASES: &[Case] = cases![
    a_new_journal_is_empty,
    records_keep_their_order,
    an_append_answers_with_its_last_place,
    an_append_of_nothing_changes_nothing,
    the_tail_is_a_lower_bound,
    empty_and_big_records_come_back,
    replay_goes_page_by_page,
    replay_starts_where_it_is_told,
    replay_beyond_the_end_is_empty,
    a_trim_keeps_what_is_not_before_its_mark,
    a_smaller_mark_is_ignored,
    a_trim_beyond_the_tail_keeps_the_places,
    places_go_on_after_a_trim_and_a_reopening,
    concurrent_appends_are_all_found,
    records_of_one_append_stay_together,
    a_reopened_journal_has_everything,
    appends_under_way_are_answered_at_a_close,
    a_closed_journal_refuses_appends,
    closing_twice_is_closing_once,
    a_dropped_append_does_not_stop_others,
    a_submission_has_its_place_at_once,
    a_wait_is_for_all_that_came_before,
    a_dropped_wait_changes_nothing,
    submissions_keep_the_order_of_the_calls,
    a_closed_journal_refuses_submissions,
    a_record_that_is_moved_outlives_the_trim,
];

/// Tries every case on a journal of its own.
///
/// # Panics
/// At the first case the journal fails; the output names it.
pub async fn run<Make, Making>(mut make: Make)
where
    Make: FnMut(&'static str) -> Making,
    Making: Future<Output = Subject>,
{
    for case in CASES {
        let named = Named(case.name);
        case.try_on(make(case.name).await).await;
        drop(named);
    }
}

/// Names the case when it panics.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "it belongs beside the panic's message")]
            {
                eprintln!("journal conformance: case {} failed", self.0);
            }
        }
    }
}

fn record(number: usize) -> Bytes {
    Bytes::from(format!("record {number}"))
}

async fn append(journal: &dyn Journal, records: Vec<Bytes>) -> Lsn {
    match journal.append(records).await {
        Ok(last) => last,
        Err(error) => panic!("an append is refused: {error}"),
    }
}

/// Appends `count` records, one at a time, numbered from 1.
async fn fill(journal: &dyn Journal, count: usize) {
    for number in 1..=count {
        append(journal, vec![record(number)]).await;
    }
}

async fn page(journal: &dyn Journal, from: Lsn, limit: usize) -> Vec<Replayed> {
    match journal.replay(from, limit).await {
        Ok(records) => {
            assert!(records.len() <= limit, "a page is longer than its limit");
            records
        }
        Err(error) => panic!("a replay fails: {error}"),
    }
}

/// Everything from `from` on, page by page, checked to be without gaps.
async fn replay_all(journal: &dyn Journal, from: Lsn, limit: usize) -> Vec<Replayed> {
    let mut all: Vec<Replayed> = Vec::new();
    let mut next = from;
    loop {
        let records = page(journal, next, limit).await;
        let Some(last) = records.last() else {
            return all;
        };
        next = last.lsn.next();
        all.extend(records);
        for pair in all.windows(2) {
            assert_eq!(pair[1].lsn, pair[0].lsn.next(), "a gap in the replay");
        }
    }
}

/// Checks that the records from `from` to `to`, the last, are what [`fill`] wrote. It does not look before
/// `from`: what was trimmed may be going just now.
async fn check_filled(journal: &dyn Journal, from: usize, to: usize) {
    let found = replay_all(journal, Lsn(from as u64), 7).await;
    for number in from..=to {
        let lsn = Lsn(number as u64);
        let here = found.iter().find(|replayed| replayed.lsn == lsn);
        assert_eq!(
            here.map(|replayed| &replayed.record),
            Some(&record(number)),
            "{lsn:?}"
        );
    }
    assert!(found.iter().all(|replayed| replayed.lsn.0 <= to as u64));
}

async fn a_new_journal_is_empty(subject: Subject) {
    let journal = subject.open().await;
    assert_eq!(journal.tail(), Lsn(1));
    assert!(page(&*journal, Lsn(0), 10).await.is_empty());
    assert!(page(&*journal, Lsn(1), 10).await.is_empty());
    journal.close().await;
}

async fn records_keep_their_order(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 20).await;
    append(&*journal, (21..=40).map(record).collect()).await;
    check_filled(&*journal, 1, 40).await;
    journal.close().await;
}

async fn an_append_answers_with_its_last_place(subject: Subject) {
    let journal = subject.open().await;
    assert_eq!(append(&*journal, vec![record(1)]).await, Lsn(1));
    assert_eq!(
        append(&*journal, (2..=5).map(record).collect()).await,
        Lsn(5)
    );
    assert_eq!(append(&*journal, vec![record(6)]).await, Lsn(6));
    journal.close().await;
}

async fn an_append_of_nothing_changes_nothing(subject: Subject) {
    let journal = subject.open().await;
    assert!(journal.append(Vec::new()).await.is_ok());
    fill(&*journal, 2).await;
    assert_eq!(journal.append(Vec::new()).await.ok(), Some(Lsn(2)));
    assert_eq!(append(&*journal, vec![record(3)]).await, Lsn(3));
    check_filled(&*journal, 1, 3).await;
    journal.close().await;
}

async fn the_tail_is_a_lower_bound(subject: Subject) {
    let journal = subject.open().await;
    for number in 1..=10 {
        let tail = journal.tail();
        let last = append(&*journal, vec![record(number)]).await;
        assert!(
            tail <= last,
            "the tail {tail:?} is above a later append, {last:?}"
        );
    }
    assert!(journal.tail() <= Lsn(11));
    let journal = subject.reopen(journal).await;
    let tail = journal.tail();
    assert!(tail <= append(&*journal, vec![record(11)]).await);
    journal.close().await;
}

async fn empty_and_big_records_come_back(subject: Subject) {
    let journal = subject.open().await;
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let records = vec![Bytes::new(), Bytes::from(big), Bytes::new()];
    assert_eq!(append(&*journal, records.clone()).await, Lsn(3));
    assert_eq!(append(&*journal, vec![Bytes::new()]).await, Lsn(4));
    let journal = subject.reopen(journal).await;
    let found = replay_all(&*journal, Lsn(1), 2).await;
    let found: Vec<Bytes> = found.into_iter().map(|replayed| replayed.record).collect();
    // Compared without printing three million bytes.
    assert!(
        found[..3] == records[..],
        "records changed on their way back"
    );
    assert_eq!(found[3..], [Bytes::new()]);
    journal.close().await;
}

async fn replay_goes_page_by_page(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 25).await;
    let journal = subject.reopen(journal).await;
    for limit in [1, 2, 24, 25, 26, usize::MAX] {
        let found = replay_all(&*journal, Lsn(1), limit).await;
        assert_eq!(found.len(), 25, "limit {limit}");
        let expected: Vec<Bytes> = (1..=25).map(record).collect();
        assert!(found.iter().map(|replayed| &replayed.record).eq(&expected));
    }
    assert!(page(&*journal, Lsn(1), 0).await.is_empty());
    journal.close().await;
}

async fn replay_starts_where_it_is_told(subject: Subject) {
    let journal = subject.open().await;
    append(&*journal, (1..=10).map(record).collect()).await;
    // Backwards, so that no page is the one after the last.
    for from in (1..=10).rev() {
        let found = page(&*journal, Lsn(from), 1).await;
        assert_eq!(found[0].lsn, Lsn(from));
        assert_eq!(found[0].record, record(from as usize));
    }
    assert_eq!(page(&*journal, Lsn(0), 1).await[0].lsn, Lsn(1));
    journal.close().await;
}

async fn replay_beyond_the_end_is_empty(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 3).await;
    for from in [4, 5, 1_000_000, u64::MAX] {
        assert!(
            page(&*journal, Lsn(from), 10).await.is_empty(),
            "from {from}"
        );
    }
    journal.close().await;
}

async fn a_trim_keeps_what_is_not_before_its_mark(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 30).await;
    for mark in [1, 2, 11, 30] {
        assert!(journal.trim(Lsn(mark)).await.is_ok());
        check_filled(&*journal, mark as usize, 30).await;
    }
    let journal = subject.reopen(journal).await;
    check_filled(&*journal, 30, 30).await;
    journal.close().await;
}

async fn a_smaller_mark_is_ignored(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 10).await;
    assert!(journal.trim(Lsn(8)).await.is_ok());
    assert!(journal.trim(Lsn(3)).await.is_ok());
    assert!(journal.trim(Lsn(0)).await.is_ok());
    check_filled(&*journal, 8, 10).await;
    journal.close().await;
}

async fn a_trim_beyond_the_tail_keeps_the_places(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 5).await;
    assert!(journal.trim(Lsn(1_000)).await.is_ok());
    assert_eq!(append(&*journal, vec![record(6)]).await, Lsn(6));
    check_filled(&*journal, 6, 6).await;
    journal.close().await;
}

async fn places_go_on_after_a_trim_and_a_reopening(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 5).await;
    assert!(journal.trim(Lsn(6)).await.is_ok());
    let journal = subject.reopen(journal).await;
    assert_eq!(append(&*journal, vec![record(6)]).await, Lsn(6));
    let journal = subject.reopen(journal).await;
    check_filled(&*journal, 6, 6).await;
    journal.close().await;
}

async fn concurrent_appends_are_all_found(subject: Subject) {
    let journal = subject.open().await;
    let tasks = (0..50).map(|task: usize| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            let mut places = Vec::new();
            for number in 0..20 {
                let number = task * 100 + number;
                places.push((append(&*journal, vec![record(number)]).await, number));
            }
            places
        })
    });
    let mut places = Vec::new();
    for answered in join_all(tasks).await {
        let answered = answered.unwrap_or_else(|error| panic!("a task failed: {error}"));
        assert!(
            answered.is_sorted(),
            "appends one after the other changed places"
        );
        places.extend(answered);
    }
    let distinct: BTreeSet<Lsn> = places.iter().map(|(lsn, _)| *lsn).collect();
    assert_eq!(distinct.len(), 1_000, "two records have one place");
    let journal = subject.reopen(journal).await;
    let found = replay_all(&*journal, Lsn(1), 64).await;
    assert_eq!(found.len(), 1_000);
    places.sort_unstable();
    for (replayed, (lsn, number)) in found.iter().zip(places) {
        assert_eq!(replayed.lsn, lsn);
        assert_eq!(replayed.record, record(number));
    }
    journal.close().await;
}

async fn records_of_one_append_stay_together(subject: Subject) {
    let journal = subject.open().await;
    let appends = (0..40).map(|first: usize| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            let numbers = first * 10..first * 10 + 1 + first % 7;
            (
                append(&*journal, numbers.clone().map(record).collect()).await,
                numbers,
            )
        })
    });
    let answered = join_all(appends).await;
    let found = replay_all(&*journal, Lsn(1), usize::MAX).await;
    for answer in answered {
        let (last, numbers) = answer.unwrap_or_else(|error| panic!("a task failed: {error}"));
        let end = usize::try_from(last.0).unwrap_or(usize::MAX);
        let here = found[end - numbers.len()..end].iter();
        assert!(
            here.map(|replayed| replayed.record.clone())
                .eq(numbers.map(record))
        );
    }
    journal.close().await;
}

async fn a_reopened_journal_has_everything(subject: Subject) {
    let mut journal = subject.open().await;
    for round in 0..5 {
        append(
            &*journal,
            (round * 4 + 1..=round * 4 + 4).map(record).collect(),
        )
        .await;
        journal = subject.reopen(journal).await;
        check_filled(&*journal, 1, round * 4 + 4).await;
    }
    journal.close().await;
}

async fn appends_under_way_are_answered_at_a_close(subject: Subject) {
    let journal = subject.open().await;
    let appends: Vec<_> = (0..32)
        .map(|number| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move { (journal.append(vec![record(number)]).await, number) })
        })
        .collect();
    tokio::task::yield_now().await;
    journal.close().await;
    let mut acknowledged = Vec::new();
    for answer in join_all(appends).await {
        match answer.unwrap_or_else(|error| panic!("a task failed: {error}")) {
            (Ok(lsn), number) => acknowledged.push((lsn, number)),
            (Err(JournalError::Unavailable { .. }), _) => {}
            (Err(error), _) => panic!("a close refuses with another error: {error}"),
        }
    }
    drop(journal);
    let journal = subject.open().await;
    let found = replay_all(&*journal, Lsn(1), usize::MAX).await;
    for (lsn, number) in acknowledged {
        let here = found.iter().find(|replayed| replayed.lsn == lsn);
        assert_eq!(here.map(|replayed| &replayed.record), Some(&record(number)));
    }
    journal.close().await;
}

async fn a_closed_journal_refuses_appends(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 1).await;
    journal.close().await;
    let refused = journal.append(vec![record(2)]).await;
    assert!(
        matches!(refused, Err(JournalError::Unavailable { .. })),
        "{refused:?}"
    );
    let journal = subject.reopen(journal).await;
    check_filled(&*journal, 1, 1).await;
    journal.close().await;
}

async fn closing_twice_is_closing_once(subject: Subject) {
    let journal = subject.open().await;
    fill(&*journal, 3).await;
    journal.close().await;
    journal.close().await;
    join(journal.close(), journal.close()).await;
    let journal = subject.reopen(journal).await;
    check_filled(&*journal, 1, 3).await;
    journal.close().await;
}

async fn a_dropped_append_does_not_stop_others(subject: Subject) {
    let journal = subject.open().await;
    let dropped = {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { journal.append(vec![record(0); 3]).await })
    };
    tokio::task::yield_now().await;
    dropped.abort();
    let _ = dropped.await;
    let last = append(&*journal, vec![record(7)]).await;
    let journal = subject.reopen(journal).await;
    let found = replay_all(&*journal, Lsn(1), usize::MAX).await;
    let (kept, before) = found
        .split_last()
        .unwrap_or_else(|| panic!("an acknowledged record is missing"));
    assert_eq!((kept.lsn, &kept.record), (last, &record(7)));
    assert!(before.len() <= 3 && before.iter().all(|replayed| replayed.record == record(0)));
    journal.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::memory::MemoryJournal;

    #[tokio::test]
    async fn the_reference_passes() {
        run(|_case| async {
            let journal = MemoryJournal::new();
            Subject::new(move || {
                let opened: Arc<dyn Journal> = Arc::new(journal.clone());
                async { Ok(opened) }
            })
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "an acknowledged record is missing")]
    async fn a_journal_that_forgets_is_found_out() {
        let case = CASES
            .iter()
            .find(|case| case.name == "a_dropped_append_does_not_stop_others");
        let forgetful = Subject::new(|| async {
            let opened: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
            Ok(opened)
        });
        case.unwrap().try_on(forgetful).await;
    }
}
