//! Natural numbers of any size: just what reading and printing a floating-point number takes.

use std::cmp::Ordering;

/// Digits of base 2^32, the lowest first, no zero at the end.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(value: u64) -> Self {
        Self(vec![value as u32, (value >> 32) as u32]).trimmed()
    }
}

impl Natural {
    /// `base^exponent`.
    pub(super) fn power(base: u32, exponent: u32) -> Self {
        let mut power = Self::from(1);
        for _ in 0..exponent {
            power.append_digit(base, 0);
        }
        power
    }

    /// Becomes `self * base + digit`.
    pub(super) fn append_digit(&mut self, base: u32, digit: u32) {
        let mut carry = u64::from(digit);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(base);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// How many bits it takes; none for zero.
    pub(super) fn bits(&self) -> u32 {
        match self.0.last() {
            Some(last) => self.0.len() as u32 * 32 - last.leading_zeros(),
            None => 0,
        }
    }

    pub(super) fn bit(&self, place: u32) -> bool {
        self.0
            .get(place as usize / 32)
            .is_some_and(|limb| limb >> (place % 32) & 1 == 1)
    }

    /// Whether any bit below this place is set.
    pub(super) fn has_bit_below(&self, place: u32) -> bool {
        let whole = (place as usize / 32).min(self.0.len());
        let part = self.0.get(place as usize / 32).copied().unwrap_or(0);
        self.0[..whole].iter().any(|limb| *limb != 0) || part & ((1_u32 << (place % 32)) - 1) != 0
    }

    /// The lowest 64 bits.
    pub(super) fn low_64(&self) -> u64 {
        let limb = |at: usize| u64::from(self.0.get(at).copied().unwrap_or(0));
        limb(0) | limb(1) << 32
    }

    pub(super) fn shift_left(&self, bits: u32) -> Self {
        let mut limbs = vec![0; bits as usize / 32];
        let mut carry = 0_u64;
        for limb in &self.0 {
            carry |= u64::from(*limb) << (bits % 32);
            limbs.push(carry as u32);
            carry >>= 32;
        }
        limbs.push(carry as u32);
        Self(limbs).trimmed()
    }

    pub(super) fn shift_right(&self, bits: u32) -> Self {
        let from = (bits as usize / 32).min(self.0.len());
        let kept = &self.0[from..];
        let limbs = kept.iter().enumerate().map(|(at, limb)| {
            let above = kept.get(at + 1).copied().unwrap_or(0);
            ((u64::from(above) << 32 | u64::from(*limb)) >> (bits % 32)) as u32
        });
        Self(limbs.collect()).trimmed()
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        let mut carry = 0_u64;
        let mut limbs = Vec::with_capacity(self.0.len().max(other.0.len()) + 1);
        for at in 0..self.0.len().max(other.0.len()) {
            let limb = |number: &Self| u64::from(number.0.get(at).copied().unwrap_or(0));
            carry += limb(self) + limb(other);
            limbs.push(carry as u32);
            carry >>= 32;
        }
        limbs.push(carry as u32);
        Self(limbs).trimmed()
    }

    /// `self - other`, which must not be larger.
    pub(super) fn subtract(&self, other: &Self) -> Self {
        let mut borrow = 0_i64;
        let limbs = self.0.iter().enumerate().map(|(at, limb)| {
            let difference =
                i64::from(*limb) - i64::from(other.0.get(at).copied().unwrap_or(0)) + borrow;
            borrow = difference >> 32;
            difference as u32
        });
        Self(limbs.collect()).trimmed()
    }

    pub(super) fn multiply(&self, other: &Self) -> Self {
        let mut limbs = vec![0_u32; self.0.len() + other.0.len()];
        for (at, a) in self.0.iter().enumerate() {
            let mut carry = 0_u64;
            for (limb, b) in limbs[at..].iter_mut().zip(other.0.iter().chain([&0])) {
                carry += u64::from(*limb) + u64::from(*a) * u64::from(*b);
                *limb = carry as u32;
                carry >>= 32;
            }
        }
        Self(limbs).trimmed()
    }

    /// The quotient by a number that is not zero, and whether nothing is left over. Bit by bit: the quotients
    /// needed have some seventy bits.
    pub(super) fn divide(&self, by: &Self) -> (Self, bool) {
        let mut rest = self.clone();
        let mut quotient = Self::default();
        let steps = (self.bits() + 1).saturating_sub(by.bits());
        for shift in (0..steps).rev() {
            let part = by.shift_left(shift);
            quotient = quotient.shift_left(1);
            if rest.compare(&part) != Ordering::Less {
                rest = rest.subtract(&part);
                quotient = quotient.add(&Self::from(1));
            }
        }
        (quotient, rest.0.is_empty())
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        self.0
            .len()
            .cmp(&other.0.len())
            .then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Its decimal digits; `0` for zero.
    pub(super) fn decimal(&self) -> String {
        const CHUNK: u64 = 1_000_000_000;
        let mut rest = self.0.clone();
        let mut chunks = Vec::new();
        while rest.last().is_some() {
            let mut remainder = 0_u64;
            for limb in rest.iter_mut().rev() {
                remainder = remainder << 32 | u64::from(*limb);
                *limb = (remainder / CHUNK) as u32;
                remainder %= CHUNK;
            }
            chunks.push(remainder);
            while rest.last() == Some(&0) {
                rest.pop();
            }
        }
        let mut digits = chunks.pop().unwrap_or(0).to_string();
        for chunk in chunks.iter().rev() {
            digits.push_str(&format!("{chunk:09}"));
        }
        digits
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_agrees_with_that_of_128_bits() {
        let natural = |value: u128| {
            Natural::from(value as u64).add(&Natural::from((value >> 64) as u64).shift_left(64))
        };
        let numbers = [
            0_u128,
            1,
            9,
            1 << 32,
            u64::MAX.into(),
            (1 << 63) + 12345,
            10_u128.pow(18) + 7,
        ];
        for a in numbers {
            for b in numbers {
                assert_eq!(natural(a).add(&natural(b)).decimal(), (a + b).to_string());
                assert_eq!(
                    natural(a).multiply(&natural(b)).decimal(),
                    (a * b).to_string()
                );
                if a >= b {
                    assert_eq!(
                        natural(a).subtract(&natural(b)).decimal(),
                        (a - b).to_string()
                    );
                }
                if let (Some(quotient), Some(rest)) = (a.checked_div(b), a.checked_rem(b)) {
                    assert_eq!(
                        natural(a).divide(&natural(b)),
                        (natural(quotient), rest == 0)
                    );
                }
            }
            for shift in [0, 1, 31, 32, 33, 60] {
                assert_eq!(natural(a).shift_left(shift), natural(a << shift));
                assert_eq!(natural(a).shift_right(shift), natural(a >> shift));
                assert_eq!(natural(a).has_bit_below(shift), a & ((1 << shift) - 1) != 0);
            }
        }
        assert_eq!(Natural::power(10, 20).decimal(), "100000000000000000000");
    }
}
