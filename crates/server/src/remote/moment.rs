//! Moments and ages as people read them.

use std::time::Duration;

use tidegate::port::Timestamp;

/// A moment as `2026-01-31 23:59:59 UTC`.
pub(super) fn utc(moment: Timestamp) -> String {
    let seconds = moment.as_millis() / 1000;
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(day);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The year, month and day that begins so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // A cycle of the calendar has 400 years.
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

/// How long ago, in its two largest units: `3d4h`, `12m5s`.
pub(super) fn age(moment: Timestamp, now: Timestamp) -> String {
    let age = Duration::from_secs(now.since(moment).as_secs());
    let text = crate::config::duration_text(age);
    let mut units = 0;
    let end = text.find(|c: char| {
        units += usize::from(c.is_ascii_alphabetic());
        units == 2
    });
    end.map_or(text.clone(), |end| text[..=end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        for (millis, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_798_761_599_000, "2026-12-31 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
            (13_574_563_200_000, "2400-02-29 00:00:00 UTC"),
        ] {
            assert_eq!(utc(Timestamp::from_millis(millis)), text);
        }
    }

    #[test]
    fn ages_have_two_units() {
        let now = Timestamp::from_millis(1_000_000_000);
        let before = |seconds: u64| Timestamp::from_millis(1_000_000_000 - seconds * 1000);
        assert_eq!(age(before(0), now), "0s");
        assert_eq!(age(before(59), now), "59s");
        assert_eq!(age(before(3 * 86_400 + 4 * 3600 + 5), now), "3d4h");
        assert_eq!(age(before(725), now), "12m5s");
        assert_eq!(age(now, before(10)), "0s", "a clock that is behind");
    }
}
