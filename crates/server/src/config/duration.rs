//! Durations as people write them: `50ms`, `30m`, `1h30m`, `7d`.

use std::time::Duration;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Longer than anything sensible, short enough that no sum overflows.
const MILLIS_MAX: u64 = 3_650 * 86_400_000;

/// Reads one or more whole numbers, each with its unit, larger units first.
///
/// # Errors
/// Says what a duration looks like.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || {
        Err(format!(
            "'{}' is no duration; write whole numbers with their units d, h, m, s, ms, such as \"50ms\", \"30m\" or \"1h30m\"",
            text.escape_default()
        ))
    };
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return wrong();
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        // The iterator goes on where it was, so a unit can neither come twice nor after a smaller one.
        let (Ok(number), Some((_, millis))) =
            (number.parse::<u64>(), units.find(|(name, _)| *name == unit))
        else {
            return wrong();
        };
        total = total.saturating_add(number.saturating_mul(*millis));
        rest = after;
    }
    if total > MILLIS_MAX {
        return Err(format!("'{text}' is longer than ten years"));
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration so that [`parse`] reads it back; what is below a millisecond is left out.
pub(crate) fn write(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in UNITS {
        if millis >= size {
            text.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, millis: u64) {
        assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
    }

    #[test]
    fn durations_are_read() {
        check("50ms", 50);
        check("0s", 0);
        check("30m", 1_800_000);
        check("1h30m", 5_400_000);
        check("7d", 604_800_000);
        check("1s500ms", 1_500);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "50",
            "ms",
            "-1s",
            "1.5s",
            "1m1h",
            "1s1s",
            "1 s",
            "5 minutes",
            "1x",
            "9999999999d",
            "99999999999999999999ms",
            "\u{661}s",
            "4000d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [
            0,
            1,
            999,
            1_000,
            61_001,
            5_400_000,
            604_800_000,
            694_861_001,
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&write(duration)), Ok(duration));
        }
    }
}
