//! Every kind of violation, in its smallest form.

use std::time::Duration;

use tidegate_core::Key;
use tidegate_testkit::history::{
    Commit, EndState, History, Operation, Outcome, Verdict, Violation, WriteOrder,
};

use super::told::{KEY, by, delete, done, failed, history, order, read, unknown, value, write};

const PATIENCE: Duration = Duration::from_secs(5);

/// The one violation, and the operations it names.
fn expect(
    violations: &[Violation],
    invariant: &str,
    wrong: Option<&Operation>,
    against: Option<&Operation>,
) {
    let [violation] = violations else {
        panic!("{violations:#?}");
    };
    assert_eq!(violation.invariant, invariant, "{violation}");
    assert_eq!(violation.wrong.as_deref(), wrong, "{violation}");
    assert_eq!(violation.against.as_deref(), against, "{violation}");
}

fn expect_found(history: &History) -> Violation {
    match history.search(PATIENCE).remove(0).1 {
        Verdict::Violated(violation) => *violation,
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn a_good_history_is_good() {
    let good = history(&[
        read(0, 0, 5),
        write(1, 1, 10),
        // It overlaps, so it may see either.
        read(0, 2, 9),
        read(1, 3, 9),
        unknown(write(2, 11, 20)),
        read(1, 12, 30),
        read(2, 31, 40),
        write(3, 41, 50),
        delete(51, 60),
        read(0, 61, 70),
        unknown(write(4, 71, 72)),
        failed(write(5, 73, 80)),
        read(0, 90, 91),
    ]);
    let order = order(&[1, 2, 3, 0]);
    assert_eq!(good.check_linearizable(&order), []);
    assert_eq!(good.check_bounded(&order, Duration::ZERO), []);
    assert_eq!(good.check_sessions(&order, |o| o.client.into()), []);
    let end = EndState {
        key: Key::from(KEY),
        row: None,
        nodes: vec![(0, None)],
    };
    assert_eq!(good.check_end(&order, std::slice::from_ref(&end)), []);
    let verdicts = good.with_end(&[end]).search(PATIENCE);
    assert_eq!(verdicts[0].1, Verdict::Linearizable);
}

#[test]
fn a_delete_may_wait_for_what_it_deletes() {
    let good = history(&[
        delete(0, 100),
        read(0, 1, 10),
        write(1, 20, 30),
        read(0, 40, 50),
        read(0, 60, 110),
    ]);
    assert_eq!(good.search(PATIENCE)[0].1, Verdict::Linearizable);
}

#[test]
fn a_read_of_what_an_acknowledged_write_had_replaced() {
    let (old, new, stale) = (write(1, 0, 10), write(2, 11, 20), read(1, 21, 30));
    let bad = history(&[old, new.clone(), stale.clone()]);
    let found = bad.check_linearizable(&order(&[1, 2]));
    expect(&found, "I1", Some(&stale), Some(&new));
    let found = expect_found(&bad);
    assert_eq!(found.wrong.as_deref(), Some(&stale));
    assert_eq!(found.against.as_deref(), Some(&new));
}

#[test]
fn a_read_that_goes_back_behind_another_read() {
    // The write is under way all the time: nothing but the first read tells that it had happened.
    let new = unknown(write(2, 11, 100));
    let (first, second) = (read(2, 12, 20), read(1, 21, 30));
    let bad = history(&[write(1, 0, 10), new, first.clone(), second.clone()]);
    let found = bad.check_linearizable(&order(&[1, 2]));
    expect(&found, "I1", Some(&second), Some(&first));
    expect_found(&bad);
}

#[test]
fn an_absent_key_after_a_write_and_a_value_after_a_delete() {
    let (put, gone) = (write(1, 0, 10), read(0, 11, 20));
    let bad = history(&[put.clone(), gone.clone()]);
    let found = bad.check_linearizable(&order(&[1]));
    expect(&found, "I1", Some(&gone), Some(&put));
    expect_found(&bad);

    let (gone, back) = (delete(11, 20), read(1, 21, 30));
    let bad = history(&[put, gone.clone(), back.clone()]);
    let found = bad.check_linearizable(&order(&[1, 0]));
    expect(&found, "I1", Some(&back), Some(&gone));
    expect_found(&bad);
}

#[test]
fn a_delete_that_never_happened() {
    let (put, gone) = (write(1, 0, 10), delete(11, 20));
    let bad = history(&[put.clone(), gone.clone(), read(1, 21, 30)]);
    let found = bad.check_linearizable(&order(&[1]));
    expect(&found, "I1", Some(&gone), Some(&put));
    expect_found(&bad);
}

#[test]
fn writes_in_an_order_that_real_time_forbids() {
    let (first, second) = (write(1, 0, 10), write(2, 11, 20));
    let bad = history(&[first.clone(), second.clone()]);
    let found = bad.check_linearizable(&order(&[2, 1]));
    expect(&found, "I1", Some(&second), Some(&first));
    // The end tells without the order.
    let end = EndState {
        key: Key::from(KEY),
        row: Some(value(1)),
        nodes: Vec::new(),
    };
    expect_found(&bad.with_end(&[end]));
    // Also where nobody was told that the second one happened.
    let second = unknown(second);
    let bad = history(&[first.clone(), second.clone()]);
    let found = bad.check_linearizable(&order(&[2, 1]));
    expect(&found, "I1", Some(&second), Some(&first));
}

#[test]
fn a_read_from_the_future_and_one_of_nothing_that_was_written() {
    let (early, late) = (read(1, 0, 10), write(1, 11, 20));
    let bad = history(&[early.clone(), late.clone()]);
    let found = bad.check_linearizable(&order(&[1]));
    assert_eq!(found[0].wrong.as_deref(), Some(&early));
    assert_eq!(found[0].against.as_deref(), Some(&late));
    assert_eq!(expect_found(&bad).against.as_deref(), Some(&late));

    let invented = read(7, 0, 10);
    let bad = history(std::slice::from_ref(&invented));
    expect(
        &bad.check_linearizable(&order(&[])),
        "I5",
        Some(&invented),
        None,
    );
    assert_eq!(expect_found(&bad).invariant, "I5");

    // Written, and refused or never committed: dirty reads.
    for writer in [failed(write(7, 0, 5)), unknown(write(7, 0, 5))] {
        let bad = history(&[writer.clone(), invented.clone()]);
        let found = bad.check_linearizable(&order(&[]));
        expect(&found, "I5", Some(&invented), Some(&writer));
        let found = bad.check_bounded(&order(&[]), Duration::ZERO);
        expect(&found, "I5", Some(&invented), None);
    }
}

#[test]
fn a_value_under_the_version_of_another() {
    let (one, mut other) = (write(1, 0, 10), read(1, 11, 20));
    let version = |operation: &mut Operation, version| {
        if let Outcome::Ok(answer) = &mut operation.outcome {
            answer.version = Some(version);
        }
    };
    version(&mut other, 10);
    let order = order(&[1, 2]);
    let good = history(&[one.clone(), other.clone()]);
    assert_eq!(good.check_linearizable(&order), []);
    version(&mut other, 20);
    let bad = history(&[one.clone(), other.clone()]);
    expect(
        &bad.check_linearizable(&order),
        "I1",
        Some(&other),
        Some(&one),
    );
}

#[test]
fn a_delete_with_a_version_is_held_to_its_place() {
    let mut gone = delete(31, 40);
    if let Outcome::Ok(answer) = &mut gone.outcome {
        answer.version = Some(20);
    }
    let put = write(2, 21, 30);
    let bad = history(&[write(1, 0, 10), put.clone(), gone.clone()]);
    let found = bad.check_linearizable(&order(&[1, 0, 2, 0]));
    expect(&found, "I1", Some(&gone), Some(&put));
}

#[test]
fn an_acknowledged_write_that_was_never_committed() {
    let lost = write(1, 0, 10);
    let bad = history(std::slice::from_ref(&lost));
    expect(
        &bad.check_linearizable(&order(&[])),
        "I4",
        Some(&lost),
        None,
    );
    expect(&bad.check_end(&order(&[]), &[]), "I4", Some(&lost), None);
}

#[test]
fn a_write_that_another_one_absorbed_is_good_only_where_that_may_be() {
    let absorbed = write(1, 0, 20);
    let good = history(&[absorbed.clone(), write(2, 5, 21), read(2, 30, 31)]);
    assert_eq!(good.check_linearizable(&order(&[2]).coalesced()), []);
    assert_eq!(good.check_end(&order(&[2]).coalesced(), &[]), []);
    let found = good.check_linearizable(&order(&[2]));
    expect(&found, "I4", Some(&absorbed), None);
    // What absorbs it must have begun before it was acknowledged.
    let early = write(1, 0, 4);
    let bad = history(&[early.clone(), write(2, 5, 21)]);
    let found = bad.check_linearizable(&order(&[2]).coalesced());
    expect(&found, "I4", Some(&early), None);
    // And once it is acknowledged, what it replaced is stale.
    let (old, stale) = (write(3, 0, 1), read(3, 30, 31));
    let absorbed = write(1, 2, 20);
    let bad = history(&[
        old,
        absorbed.clone(),
        unknown(write(2, 5, 99)),
        stale.clone(),
    ]);
    let found = bad.check_linearizable(&order(&[3, 2]).coalesced());
    expect(&found, "I1", Some(&stale), Some(&absorbed));
}

#[test]
fn a_delete_that_another_change_absorbed_and_one_that_absorbed() {
    let (put, gone) = (write(1, 0, 10), delete(11, 25));
    let good = history(&[put.clone(), gone.clone(), write(2, 15, 24), read(2, 30, 31)]);
    assert_eq!(good.check_linearizable(&order(&[1, 2]).coalesced()), []);
    let found = good.check_linearizable(&order(&[1, 2]));
    assert_eq!(found[0].wrong.as_deref(), Some(&gone));
    // What absorbs it must have begun before it was acknowledged.
    let bad = history(&[put.clone(), gone.clone(), write(2, 26, 29)]);
    let found = bad.check_linearizable(&order(&[1, 2]).coalesced());
    expect(&found, "I1", Some(&gone), Some(&put));
    // And once it is acknowledged, what it deleted is stale.
    let stale = read(1, 26, 27);
    let bad = history(&[put, gone.clone(), unknown(write(2, 15, 99)), stale.clone()]);
    let found = bad.check_linearizable(&order(&[1, 2]).coalesced());
    expect(&found, "I1", Some(&stale), Some(&gone));

    // A write and a delete of a key that is not there leave nothing together.
    let absorbed = write(1, 0, 20);
    let good = history(&[absorbed.clone(), delete(5, 20), read(0, 30, 31)]);
    assert_eq!(good.check_linearizable(&order(&[]).coalesced()), []);
    let bad = history(&[absorbed.clone(), delete(21, 25), read(0, 30, 31)]);
    let found = bad.check_linearizable(&order(&[]).coalesced());
    expect(&found, "I4", Some(&absorbed), None);
}

#[test]
fn a_read_older_than_the_bound() {
    let (old, new) = (write(1, 0, 10), write(2, 11, 100));
    let bound = Duration::from_nanos(50);
    let order = order(&[1, 2]);
    let young = history(&[old.clone(), new.clone(), read(1, 150, 160)]);
    assert_eq!(young.check_bounded(&order, bound), []);
    assert_eq!(young.worst_age(&order), bound);
    let stale = read(1, 151, 160);
    let bad = history(&[old.clone(), new.clone(), stale.clone()]);
    let found = bad.check_bounded(&order, bound);
    expect(&found, "I2", Some(&stale), Some(&new));
    assert_eq!(bad.worst_age(&order), Duration::from_nanos(51));
    let gone = read(0, 151, 160);
    let bad = history(&[old.clone(), new.clone(), gone.clone()]);
    let found = bad.check_bounded(&order, bound);
    expect(&found, "I2", Some(&gone), Some(&old));
    // A bound is no leave to read what is not there yet.
    let early = read(2, 0, 5);
    let bad = history(&[old, new, early.clone()]);
    let found = bad.check_bounded(&order, bound);
    expect(&found, "I1", Some(&early), None);
}

#[test]
fn a_session_that_goes_back_or_misses_its_own_write() {
    let session = |operation: &Operation| u64::from(operation.client);
    let order = order(&[1, 2]);
    let writes = [write(1, 0, 10), write(2, 11, 20)];
    // Another session may be behind.
    let behind = by(2, read(1, 21, 30));
    let good = history(&[writes[0].clone(), writes[1].clone(), behind]);
    assert_eq!(good.check_sessions(&order, session), []);

    let own = read(1, 31, 40);
    let bad = history(&[writes[0].clone(), writes[1].clone(), own.clone()]);
    let found = bad.check_sessions(&order, session);
    expect(&found, "I3", Some(&own), Some(&writes[1]));

    let (ahead, back) = (by(2, read(2, 21, 30)), by(2, read(1, 31, 40)));
    let [first, second] = writes;
    let bad = history(&[first, second, ahead.clone(), back.clone()]);
    let found = bad.check_sessions(&order, session);
    expect(&found, "I3", Some(&back), Some(&ahead));
}

#[test]
fn rows_lost_invented_resurrected_and_caches_that_disagree() {
    let put = write(1, 0, 10);
    let end = |row: Option<u64>, node: Option<u64>| EndState {
        key: Key::from(KEY),
        row: row.map(value),
        nodes: vec![(2, node.map(value))],
    };
    let one = history(std::slice::from_ref(&put));
    let found = one.check_end(&order(&[1]), &[end(None, None)]);
    expect(&found, "I4", None, Some(&put));
    let found = one.check_end(&order(&[1]), &[end(Some(1), None)]);
    expect(&found, "I7", None, Some(&put));

    let both = history(&[put.clone(), delete(11, 20)]);
    let found = both.check_end(&order(&[1, 0]), &[end(Some(1), Some(1))]);
    expect(&found, "I6", None, None);

    let none = history(&[]);
    let found = none.check_end(&order(&[1]), &[end(Some(1), Some(1))]);
    expect(&found, "I5", None, None);
    let refused = failed(put);
    let bad = history(std::slice::from_ref(&refused));
    let found = bad.check_end(&order(&[1]), &[end(Some(1), Some(1))]);
    expect(&found, "I5", Some(&refused), None);
    let found = one.check_end(&order(&[1, 0]), &[end(None, None)]);
    expect(&found, "I5", None, None);
}

#[test]
fn versions_that_do_not_rise_and_writes_that_come_twice() {
    let commits = |list: &[(u64, u64)]| {
        WriteOrder::of(list.iter().map(|(version, number)| {
            let commit = Commit {
                version: Some(*version),
                value: Some(value(*number)),
            };
            (Key::from(KEY), commit)
        }))
    };
    assert_eq!(commits(&[(1, 1), (2, 2)]).violations(), []);
    expect(commits(&[(2, 1), (2, 2)]).violations(), "I9", None, None);
    expect(commits(&[(2, 1), (1, 2)]).violations(), "I9", None, None);
    // Tried again by somebody who was not told, with nothing in between: the same write.
    assert_eq!(commits(&[(1, 1), (2, 1)]).violations(), []);
    let twice = commits(&[(1, 1), (2, 2), (3, 1)]);
    expect(twice.violations(), "I9", None, None);
    let found = history(&[write(1, 0, 9), write(2, 0, 9)]).check_end(&twice, &[]);
    expect(&found, "I9", None, None);
}

#[test]
fn what_is_found_is_said_in_one_line() {
    let put = done(
        tidegate_testkit::history::Kind::Write(value(2)),
        None,
        1_000_000,
        2_000_000,
    );
    let stale = by(3, read(1, 3_000_000, 3_500_000));
    let found = history(&[write(1, 0, 500), put, stale]).check_linearizable(&order(&[1, 2]));
    assert_eq!(
        found[0].to_string(),
        "I1 of 'k': a read returned what had been replaced before it began: client 3 at node 0 read w1.1 \
         (3.000..3.500 ms); against: client 1 at node 0 wrote w1.2 (1.000..2.000 ms)"
    );
    assert_eq!("w1.2".parse(), Ok(value(2)));
    assert!("w1".parse::<tidegate_testkit::history::Value>().is_err());
}
