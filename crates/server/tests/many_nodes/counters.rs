//! Numbers that all nodes add one to: no addition is there twice, none that was acknowledged is missing, and each
//! answer is what all before it came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidegate_testkit::history::Outcome;

/// One addition of one.
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    pub(crate) key: String,
    pub(crate) node: u32,
    pub(crate) invoked: u64,
    pub(crate) returned: u64,
    /// What it came to.
    pub(crate) told: Result<i64, Outcome>,
}

impl fmt::Display for Addition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1e3;
        let Self { key, node, .. } = self;
        write!(f, "one more of '{key}' at node {node} ")?;
        write!(
            f,
            "({:.3}..{:.3} ms): ",
            millis(self.invoked),
            millis(self.returned)
        )?;
        match &self.told {
            Ok(number) => write!(f, "{number}"),
            Err(outcome) => write!(f, "{outcome:?}"),
        }
    }
}

/// The additions of one client.
pub(crate) type AdditionLog = Vec<Addition>;

/// What is wrong with the additions of a run, given what each key is at the end (I10, and I1 of the answers).
pub(crate) fn check(additions: &[Addition], end: &BTreeMap<String, i64>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut keys: BTreeMap<&str, Vec<&Addition>> = BTreeMap::new();
    for addition in additions {
        keys.entry(&addition.key).or_default().push(addition);
    }
    for (key, additions) in keys {
        let count = |fits: fn(&&&Addition) -> bool| {
            i64::try_from(additions.iter().filter(fits).count()).unwrap_or(i64::MAX)
        };
        let done = count(|addition| addition.told.is_ok());
        let perhaps = count(|addition| addition.told == Err(Outcome::Indeterminate));
        let end = end.get(key).copied().unwrap_or(0);
        if !(done..=done + perhaps).contains(&end) {
            wrong.push(format!(
                "I10 of '{key}': {done} additions were acknowledged, of {perhaps} more it is not known, and it is {end}"
            ));
        }
        let mut told: Vec<(i64, &Addition)> = additions
            .iter()
            .filter_map(|addition| Some((addition.told.ok()?, *addition)))
            .collect();
        told.sort_by_key(|(number, _)| *number);
        // The latest beginning among the smaller numbers: nothing greater may have ended before it.
        let mut latest: Option<(i64, &Addition)> = None;
        for (number, addition) in told {
            if let Some((before, earlier)) = latest {
                if before == number {
                    wrong.push(format!(
                        "I10 of '{key}': two additions were answered with {number}: {earlier} and {addition}"
                    ));
                } else if addition.returned < earlier.invoked {
                    wrong.push(format!(
                        "I1 of '{key}': {addition}, which is more than of {earlier}, which began afterwards"
                    ));
                }
            }
            if latest.is_none_or(|(_, earlier)| addition.invoked >= earlier.invoked) {
                latest = Some((number, addition));
            }
        }
    }
    wrong
}

#[test]
fn bad_additions_are_found() {
    let addition = |invoked, told| Addition {
        key: "k".to_owned(),
        node: 0,
        invoked,
        returned: invoked + 1,
        told,
    };
    let end = |number| BTreeMap::from([("k".to_owned(), number)]);
    let good = [
        addition(0, Ok(1)),
        addition(2, Err(Outcome::Indeterminate)),
        addition(4, Err(Outcome::Failed)),
        addition(6, Ok(2)),
    ];
    assert_eq!(check(&good, &end(2)), [""; 0]);
    assert_eq!(check(&good, &end(3)), [""; 0]);
    for number in [1, 4] {
        assert_eq!(check(&good, &end(number)).len(), 1, "{number}");
    }
    let twice = [addition(0, Ok(1)), addition(2, Ok(1))];
    assert!(check(&twice, &end(2))[0].contains("two additions"));
    let back = [addition(0, Ok(2)), addition(2, Ok(1))];
    assert!(check(&back, &end(2))[0].contains("began afterwards"));
}
