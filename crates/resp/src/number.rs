//! Integers and doubles as Redis reads and prints them.
//!
//! Redis accepts one spelling per integer only: no plus sign, no leading zero, no blank, no minus zero. The protocol's
//! counts and lengths are read so, and so are the values of commands such as `INCR`; both use [`parse_integer`].

use std::fmt::{self, Write};

/// Reads a decimal integer in its only accepted spelling; `None` for anything else, out of range included.
///
/// # Examples
/// ```
/// use tidegate_resp::number::parse_integer;
///
/// assert_eq!(parse_integer(b"-12"), Some(-12));
/// assert_eq!(parse_integer(b"012"), None);
/// assert_eq!(parse_integer(b"9223372036854775808"), None);
/// ```
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    // Nineteen digits always fit into the unsigned type.
    let mut magnitude: u64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Room for the longest double: sign, 17 digits, point, leading zeros or an exponent.
const DOUBLE_TEXT_BYTES: usize = 32;

/// A double in the text Redis gives it, without an allocation.
///
/// The digits are the fewest that read back as the same double (`3`, `3.1`, `0.001`); very large and very small
/// magnitudes get an exponent as in C's `%.17g` (`1e+20`, `1e-07`); the rest are `inf`, `-inf` and `nan`.
///
/// # Examples
/// ```
/// use tidegate_resp::number::DoubleText;
///
/// assert_eq!(DoubleText::new(3.0).as_str(), "3");
/// assert_eq!(DoubleText::new(-0.5).as_str(), "-0.5");
/// assert_eq!(DoubleText::new(1e20).as_str(), "1e+20");
/// assert_eq!(DoubleText::new(f64::NEG_INFINITY).as_str(), "-inf");
/// ```
#[derive(Clone, Copy)]
pub struct DoubleText {
    bytes: [u8; DOUBLE_TEXT_BYTES],
    len: usize,
}

impl DoubleText {
    /// Formats the double.
    #[must_use]
    pub fn new(value: f64) -> Self {
        let mut text = Self {
            bytes: [0; DOUBLE_TEXT_BYTES],
            len: 0,
        };
        // The buffer is larger than any text below, so writing cannot fail; if it did, the text would end early.
        let _ = text.fill(value);
        text
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII is written.
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    fn fill(&mut self, value: f64) -> fmt::Result {
        if value.is_nan() {
            return self.write_str("nan");
        }
        if value.is_infinite() {
            return self.write_str(if value > 0.0 { "inf" } else { "-inf" });
        }
        let magnitude = value.abs();
        if value == 0.0 || (1e-4..1e17).contains(&magnitude) {
            return write!(self, "{value}");
        }
        let mut scientific = Self {
            bytes: [0; DOUBLE_TEXT_BYTES],
            len: 0,
        };
        write!(scientific, "{value:e}")?;
        let (digits, exponent) = scientific.as_str().split_once('e').ok_or(fmt::Error)?;
        let exponent: i32 = exponent.parse().map_err(|_| fmt::Error)?;
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(self, "{digits}e{sign}{:02}", exponent.unsigned_abs())
    }
}

impl Write for DoubleText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl fmt::Debug for DoubleText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_have_one_spelling() {
        for (text, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn doubles_are_short() {
        for (value, expected) in [
            (3.0, "3"),
            (3.1, "3.1"),
            (-0.0, "-0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-10, "1.5e-10"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (12345678901234568.0, "12345678901234568"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (-5e-324, "-5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(DoubleText::new(value).as_str(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_integer_reads_back(value: i64) {
            prop_assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn any_double_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            let text = DoubleText::new(value);
            let back: f64 = text.as_str().parse().expect("a double");
            prop_assert!(back.to_bits() == bits || value.is_nan(), "{:?}", text);
        }
    }
}
