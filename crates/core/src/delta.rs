//! Whole numbers kept as text, and adding to them.
//!
//! A number is what Redis takes for one: decimal, no sign but a minus, no space, no leading nought, in the
//! range of `i64`. What is no such number is never guessed at.

use std::fmt;

/// Why nothing was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SumError {
    /// What the key holds is no whole number.
    NotAnInteger,
    /// The sum would leave the range of `i64`.
    Overflow,
}

impl fmt::Display for SumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnInteger => "the value is not a whole number in decimal",
            Self::Overflow => "the sum would leave the range of a signed 64-bit number",
        })
    }
}

impl std::error::Error for SumError {}

/// The number that `text` is, if it is one.
#[must_use]
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [] => return None,
        [b'0'] if text.len() == 1 => return Some(0),
        // Also minus nought, which nobody writes.
        [b'0', ..] => return None,
        _ => {}
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What a key comes to that holds `present` when `by` is added; an absent one counts as nought.
///
/// # Errors
/// If what it holds is no whole number, or the sum is out of range.
pub fn sum(present: Option<&[u8]>, by: i64) -> Result<i64, SumError> {
    let present = match present {
        Some(text) => integer(text).ok_or(SumError::NotAnInteger)?,
        None => 0,
    };
    present.checked_add(by).ok_or(SumError::Overflow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_numbers_are_numbers() {
        for text in [
            "",
            "-",
            "+1",
            " 1",
            "1 ",
            "01",
            "-0",
            "-01",
            "1.0",
            "1e3",
            "a",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "１",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(integer(b"0"), Some(0));
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
    }

    #[test]
    fn sums_stay_in_range() {
        assert_eq!(sum(None, -3), Ok(-3));
        assert_eq!(
            sum(Some(b"9223372036854775807"), 1),
            Err(SumError::Overflow)
        );
        assert_eq!(
            sum(Some(b"-9223372036854775808"), -1),
            Err(SumError::Overflow)
        );
        assert_eq!(sum(Some(b"x"), 1), Err(SumError::NotAnInteger));
    }

    proptest! {
        #[test]
        fn every_number_is_read_as_it_is_written(number: i64) {
            prop_assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in prop::collection::vec(any::<u8>(), 0..22)) {
            if let Some(number) = integer(&text) {
                let written = number.to_string();
                prop_assert_eq!(written.as_bytes(), &text[..]);
            }
        }
    }
}
