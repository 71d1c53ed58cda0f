//! Extended floating point (a 64-bit significand, as x86 has it), for `INCRBYFLOAT`.
//!
//! Redis adds in the machine's long double and prints 17 digits behind the point without trailing zeros, so 64-bit
//! floats would answer differently in their last digits (`3000 + 1.2`). Here the same is done in integers: reading
//! rounds to the nearest, ties to even; adding rounds likewise; printing is exact decimal expansion, rounded likewise.

mod natural;

use std::cmp::Ordering;

use natural::Natural;

/// Digits behind the point before trailing zeros go.
const FRACTION_DIGITS: usize = 17;

/// The longest text read as a number, in bytes.
const TEXT_BYTES_MAX: usize = 5 * 1024;

/// The largest exponent of two of a significand read as an integer of 64 bits.
const EXPONENT_MAX: i32 = 16_383 - 63;

/// Below this a number is not told from zero with the digits printed; smaller ones are refused as Redis does.
const EXPONENT_MIN: i32 = -16_445;

/// `significand * 2^exponent`, or infinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LongDouble {
    negative: bool,
    /// Its highest bit is set unless the number is zero.
    significand: u64,
    exponent: i32,
    infinite: bool,
}

impl LongDouble {
    /// Reads a number as C does: decimal with an optional exponent, hexadecimal with an optional binary one, or an
    /// infinity; no blanks, and no NaN.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Self {
                negative,
                significand: 0,
                exponent: 0,
                infinite: true,
            });
        }
        let magnitude = match text {
            [b'0', b'x' | b'X', digits @ ..] => Digits::parse(digits, 16, b'p')?.hexadecimal(),
            digits => Digits::parse(digits, 10, b'e')?.decimal(),
        }?;
        Some(Self {
            negative,
            ..magnitude
        })
    }

    /// The sum, rounded to the nearest; nothing if it is infinite or no number.
    pub(super) fn add(self, other: Self) -> Option<Self> {
        if self.infinite || other.infinite {
            return None;
        }
        let exponent = self.exponent.min(other.exponent);
        // Beyond this distance the smaller one cannot change the larger one's rounding.
        if self.significand != 0
            && other.significand != 0
            && self.exponent.abs_diff(other.exponent) > 130
        {
            return Some(if self.exponent > other.exponent {
                self
            } else {
                other
            });
        }
        if self.significand == 0 || other.significand == 0 {
            return Some(if self.significand == 0 { other } else { self });
        }
        let aligned = |number: Self| {
            Natural::from(number.significand).shift_left(number.exponent.abs_diff(exponent))
        };
        let (a, b) = (aligned(self), aligned(other));
        let (negative, magnitude) = if self.negative == other.negative {
            (self.negative, a.add(&b))
        } else {
            match a.compare(&b) {
                Ordering::Less => (other.negative, b.subtract(&a)),
                Ordering::Equal => (false, Natural::default()),
                Ordering::Greater => (self.negative, a.subtract(&b)),
            }
        };
        let rounded = Self::round(&magnitude, exponent, false)?;
        Some(Self {
            negative: negative && rounded.significand != 0,
            ..rounded
        })
    }

    /// The nearest number to `magnitude * 2^exponent`; `more` says that the true value is a little larger. Nothing
    /// if it is beyond the range.
    fn round(magnitude: &Natural, exponent: i32, more: bool) -> Option<Self> {
        let bits = magnitude.bits();
        if bits == 0 {
            return Some(Self {
                negative: false,
                significand: 0,
                exponent: 0,
                infinite: false,
            });
        }
        let (significand, shift) = if bits <= 64 {
            (
                magnitude.low_64() << (64 - bits),
                i32::try_from(bits).ok()? - 64,
            )
        } else {
            let dropped = bits - 64;
            let kept = magnitude.shift_right(dropped).low_64();
            let half = magnitude.bit(dropped - 1);
            let rest = more || magnitude.has_bit_below(dropped - 1);
            let up = half && (rest || kept & 1 == 1);
            let shift = i32::try_from(dropped).ok()?;
            match kept.checked_add(u64::from(up)) {
                Some(kept) => (kept, shift),
                None => (1 << 63, shift + 1),
            }
        };
        let exponent = exponent.checked_add(shift)?;
        (EXPONENT_MIN - 63..=EXPONENT_MAX)
            .contains(&exponent)
            .then_some(Self {
                negative: false,
                significand,
                exponent,
                infinite: false,
            })
    }

    /// The number in decimal, at most 17 digits behind the point, no zeros at the end, never an exponent.
    pub(super) fn text(self) -> String {
        let ten_to_digits = Natural::from(10_u64.pow(FRACTION_DIGITS as u32));
        let scaled = ten_to_digits.multiply(&Natural::from(self.significand));
        let shift = self.exponent.unsigned_abs();
        let scaled = if self.exponent >= 0 {
            scaled.shift_left(shift)
        } else {
            let down = scaled.shift_right(shift);
            let half = shift > 0 && scaled.bit(shift - 1);
            let rest = shift > 1 && scaled.has_bit_below(shift - 1);
            if half && (rest || down.bit(0)) {
                down.add(&Natural::from(1))
            } else {
                down
            }
        };
        let digits = format!("{:0>1$}", scaled.decimal(), FRACTION_DIGITS + 1);
        let (whole, fraction) = digits.split_at(digits.len() - FRACTION_DIGITS);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        let sign = if self.negative && !(whole == "0" && fraction.is_empty()) {
            "-"
        } else {
            ""
        };
        format!("{sign}{whole}{point}{fraction}")
    }
}

/// Digits without their point, and the exponent written behind them.
struct Digits {
    value: Natural,
    /// How many of the digits stood behind the point.
    behind_point: i32,
    exponent: i32,
}

impl Digits {
    fn parse(text: &[u8], base: u32, exponent_mark: u8) -> Option<Self> {
        let mark = text
            .iter()
            .position(|byte| byte.eq_ignore_ascii_case(&exponent_mark));
        let (digits, exponent) = match mark {
            Some(mark) => (&text[..mark], Self::exponent(&text[mark + 1..])?),
            None => (text, 0),
        };
        let mut value = Natural::default();
        let mut behind_point = 0;
        let mut seen_point = false;
        let mut seen_digit = false;
        for byte in digits {
            match char::from(*byte).to_digit(base) {
                Some(digit) => {
                    value.append_digit(base, digit);
                    behind_point += i32::from(seen_point);
                    seen_digit = true;
                }
                None if *byte == b'.' && !seen_point => seen_point = true,
                None => return None,
            }
        }
        seen_digit.then_some(Self {
            value,
            behind_point,
            exponent,
        })
    }

    /// A decimal exponent, cut where it no longer matters.
    fn exponent(text: &[u8]) -> Option<i32> {
        let (sign, digits) = match text {
            [b'-', digits @ ..] => (-1, digits),
            [b'+', digits @ ..] => (1, digits),
            digits => (1, digits),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let magnitude = digits.iter().fold(0_i32, |sum, digit| {
            (sum * 10 + i32::from(digit - b'0')).min(1_000_000)
        });
        Some(sign * magnitude)
    }

    fn decimal(self) -> Option<LongDouble> {
        if self.value.bits() == 0 {
            return LongDouble::round(&self.value, 0, false);
        }
        let power = self.exponent - self.behind_point;
        // Far outside the range, and not worth the digits.
        if !(-12_000..=5_000).contains(&power) {
            return None;
        }
        let ten_to_power = Natural::power(10, power.unsigned_abs());
        if power >= 0 {
            return LongDouble::round(&self.value.multiply(&ten_to_power), 0, false);
        }
        // Enough bits that the quotient has more than 64 of them, and whether anything is left over.
        let shift = (ten_to_power.bits() + 70)
            .saturating_sub(self.value.bits())
            .max(1);
        let (quotient, exact) = self.value.shift_left(shift).divide(&ten_to_power);
        LongDouble::round(&quotient, -i32::try_from(shift).ok()?, !exact)
    }

    fn hexadecimal(self) -> Option<LongDouble> {
        LongDouble::round(&self.value, self.exponent - 4 * self.behind_point, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> LongDouble {
        LongDouble::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    fn sum(a: &str, b: &str) -> String {
        number(a)
            .add(number(b))
            .map(LongDouble::text)
            .unwrap_or_else(|| "infinite".to_owned())
    }

    /// All answers are those of redis-server 7.0.15 on x86-64.
    #[test]
    fn sums_are_those_of_redis() {
        for (a, b, expected) in include!("long_double/sums.in") {
            assert_eq!(sum(a, b), expected, "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "nan",
            "-nan",
            "abc",
            "1e",
            "1e+",
            ".",
            "-",
            "+",
            "0x",
            "1.2.3",
            "1e5000",
            "1e-9000",
            "--1",
            "1,5",
            "e5",
            "infi",
            "1e99999999999999999999",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(LongDouble::parse(&[b'1'; 5 * 1024]), None);
    }

    #[test]
    fn infinity_is_read_and_no_sum() {
        for text in ["inf", "-INF", "+Infinity"] {
            assert_eq!(sum(text, "1"), "infinite");
        }
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(sum("-0", "0"), "0");
        assert_eq!(sum("1", "-1"), "0");
        assert_eq!(sum("-1e-30", "0"), "0");
    }
}
