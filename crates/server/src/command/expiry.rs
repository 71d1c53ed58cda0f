//! The life of data as commands give it: seconds or milliseconds, from now or from the epoch.

use tidegate::port::Timestamp;
use tidegate_resp::Reply;
use tidegate_resp::number::parse_integer;

use super::{arguments, errors};

/// The unit of a time and what it is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unit {
    /// Milliseconds in one of it.
    pub(super) millis: i64,
    /// Counted from now, not from the epoch.
    pub(super) from_now: bool,
}

pub(super) const SECONDS: Unit = Unit {
    millis: 1000,
    from_now: true,
};
pub(super) const MILLISECONDS: Unit = Unit {
    millis: 1,
    from_now: true,
};
pub(super) const UNIX_SECONDS: Unit = Unit {
    millis: 1000,
    from_now: false,
};
pub(super) const UNIX_MILLISECONDS: Unit = Unit {
    millis: 1,
    from_now: false,
};

/// The unit of an option of `SET` and `GETEX`.
pub(super) fn unit_of_option(option: &[u8]) -> Option<Unit> {
    [
        ("EX", SECONDS),
        ("PX", MILLISECONDS),
        ("EXAT", UNIX_SECONDS),
        ("PXAT", UNIX_MILLISECONDS),
    ]
    .into_iter()
    .find(|(word, _)| arguments::is(option, word))
    .map(|(_, unit)| unit)
}

/// When a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It is over: the key is deleted.
    Past,
    /// Then.
    At(Timestamp),
}

impl End {
    /// Of milliseconds since the epoch.
    fn new(millis: i64, now: Timestamp) -> Self {
        match u64::try_from(millis).map(Timestamp::from_millis) {
            Ok(at) if at > now => Self::At(at),
            _ => Self::Past,
        }
    }
}

/// The end of life that `SET`, `SETEX` and `GETEX` are given; zero and less are refused.
pub(super) fn end_of_life(
    text: &[u8],
    unit: Unit,
    now: Timestamp,
    command: &str,
) -> Result<End, Reply> {
    let given = parse_integer(text).ok_or_else(errors::not_an_integer)?;
    let millis = since_epoch(given, unit, now).filter(|_| given > 0);
    Ok(End::new(
        millis.ok_or_else(|| errors::invalid_expiry(command))?,
        now,
    ))
}

/// The end of life that `EXPIRE` and its kin are given; what lies in the past deletes the key.
pub(super) fn any_end_of_life(
    text: &[u8],
    unit: Unit,
    now: Timestamp,
    command: &str,
) -> Result<(i64, End), Reply> {
    let given = parse_integer(text).ok_or_else(errors::not_an_integer)?;
    let millis = since_epoch(given, unit, now).ok_or_else(|| errors::invalid_expiry(command))?;
    Ok((millis, End::new(millis, now)))
}

fn since_epoch(given: i64, unit: Unit, now: Timestamp) -> Option<i64> {
    let millis = given.checked_mul(unit.millis)?;
    if unit.from_now {
        millis.checked_add(i64::try_from(now.as_millis()).ok()?)
    } else {
        Some(millis)
    }
}

/// The condition of `EXPIRE` and its kin.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Condition {
    /// Only a key without end.
    nx: bool,
    /// Only a key with one.
    xx: bool,
    /// Only to a later end; no end is the latest.
    gt: bool,
    /// Only to an earlier one.
    lt: bool,
}

impl Condition {
    /// Reads the options behind the time.
    pub(super) fn parse<'a>(options: impl Iterator<Item = &'a [u8]>) -> Result<Self, Reply> {
        let mut condition = Self::default();
        for option in options {
            let chosen = [
                ("NX", &mut condition.nx),
                ("XX", &mut condition.xx),
                ("GT", &mut condition.gt),
                ("LT", &mut condition.lt),
            ]
            .into_iter()
            .find(|(word, _)| arguments::is(option, word));
            match chosen {
                Some((_, flag)) => *flag = true,
                None => return Err(errors::naming("ERR Unsupported option ", option, "")),
            }
        }
        if condition.nx && (condition.xx || condition.gt || condition.lt) {
            return Err(Reply::error(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if condition.gt && condition.lt {
            return Err(Reply::error(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(condition)
    }

    /// Whether a key with this end of life takes another one, in milliseconds since the epoch.
    pub(super) fn allows(self, present: Option<Timestamp>, next: i64) -> bool {
        let present = present.map(|at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        let later = present.is_some_and(|present| next > present);
        let earlier = present.is_none_or(|present| next < present);
        !(self.nx && present.is_some()
            || self.xx && present.is_none()
            || self.gt && !later
            || self.lt && !earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(millis: u64) -> End {
        End::At(Timestamp::from_millis(millis))
    }

    #[test]
    fn a_life_ends_where_the_unit_says() {
        let end = |text: &str, unit| end_of_life(text.as_bytes(), unit, NOW, "set");
        assert_eq!(end("10", SECONDS), Ok(at(1_010_000)));
        assert_eq!(end("10", MILLISECONDS), Ok(at(1_000_010)));
        assert_eq!(end("2000", UNIX_SECONDS), Ok(at(2_000_000)));
        assert_eq!(end("1000001", UNIX_MILLISECONDS), Ok(at(1_000_001)));
        assert_eq!(end("1", UNIX_SECONDS), Ok(End::Past));
        assert_eq!(end("1000000", UNIX_MILLISECONDS), Ok(End::Past));
    }

    #[test]
    fn impossible_lives_are_refused() {
        for text in [
            "0",
            "-1",
            "9223372036854775807",
            "9223372036854775",
            "-9223372036854775808",
        ] {
            let refused = end_of_life(text.as_bytes(), SECONDS, NOW, "set");
            assert_eq!(refused, Err(errors::invalid_expiry("set")), "{text}");
        }
        assert_eq!(
            end_of_life(b"1.5", SECONDS, NOW, "set"),
            Err(errors::not_an_integer())
        );
        assert_eq!(
            any_end_of_life(b"-1", SECONDS, NOW, "expire"),
            Ok((999_000, End::Past))
        );
        assert_eq!(
            any_end_of_life(b"-9223372036854775808", SECONDS, NOW, "expire"),
            Err(errors::invalid_expiry("expire"))
        );
    }

    fn condition(options: &[&str]) -> Result<Condition, Reply> {
        Condition::parse(options.iter().map(|option| option.as_bytes()))
    }

    #[test]
    fn conditions_compare_ends_of_life() {
        let end = Some(Timestamp::from_millis(50));
        for (options, present, next, allowed) in [
            (&[][..], None, 1, true),
            (&["nx"], None, 1, true),
            (&["NX"], end, 1, false),
            (&["XX"], None, 1, false),
            (&["XX"], end, 1, true),
            (&["GT"], end, 51, true),
            (&["GT"], end, 50, false),
            (&["GT"], None, 51, false),
            (&["LT"], end, 49, true),
            (&["LT"], end, 50, false),
            (&["LT"], None, 49, true),
            (&["XX", "LT"], None, 49, false),
            (&["XX", "GT"], end, 60, true),
        ] {
            assert_eq!(
                condition(options).unwrap().allows(present, next),
                allowed,
                "{options:?} {next}"
            );
        }
    }

    #[test]
    fn conditions_that_contradict_are_refused() {
        assert!(condition(&["NX", "XX"]).is_err());
        assert!(condition(&["NX", "GT"]).is_err());
        assert!(condition(&["GT", "LT"]).is_err());
        assert_eq!(
            condition(&["foo"]),
            Err(Reply::error("ERR Unsupported option foo"))
        );
    }
}
