//! Versions: what orders the writes of one key.
//!
//! A version is `generation (20 bits) | number (44 bits)` and always fits a signed 64-bit column. Within a
//! generation the store numbers what it commits (write-through, write-around) from under the row lock, and
//! the process numbers what it acknowledges (write-back). Every start of a process takes a new generation
//! from the store ([`Store::open_generation`](crate::port::Store::open_generation)), so whatever is written
//! after a start is newer than whatever was written before it, also after a class changed its strategy.
//!
//! The versions that a process issues are even. A row that others change in plain SQL gets the next odd
//! version from a trigger ([`Version::raised_outside`]), so no such change is ever taken for a write of ours.

use std::fmt;

const NUMBER_BITS: u32 = 44;
const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;
/// The largest generation; 19 bits, so that a version fits a signed 64-bit column.
pub const GENERATION_MAX: u64 = (1 << 19) - 1;

/// Orders the writes of one key in commit order. Strictly greater means newer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Version(u64);

impl Version {
    /// Older than every version ever issued.
    pub const NONE: Self = Self(0);

    /// The version `number` of `generation`. Both are cut to their widths, which no store and no process
    /// reaches (2^44 writes in one generation, 2^19 starts).
    #[must_use]
    pub fn compose(generation: u64, number: u64) -> Self {
        Self((generation.min(GENERATION_MAX) << NUMBER_BITS) | number.min(NUMBER_MAX))
    }

    /// A version as a store keeps it.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The version of a row as it stands in its column. A row that others made and did not number (0, or less)
    /// counts as numbered 1, so that it is told from a key without a row ([`Version::NONE`]).
    #[must_use]
    pub fn of_row(kept: i64) -> Self {
        Self(kept.max(1).unsigned_abs())
    }

    /// The number to keep in a store: at most `i64::MAX`.
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The version that a row of this version gets when others change it without setting one: the next odd
    /// one. Triggers of stores reckon the same of [`Version::of_row`]: `(max(version, 1) + 1) | 1`.
    #[must_use]
    pub fn raised_outside(self) -> Self {
        Self(self.0.saturating_add(1) | 1)
    }

    /// The generation in which this version was issued.
    #[must_use]
    pub fn generation(self) -> u64 {
        self.0 >> NUMBER_BITS
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation(), self.0 & NUMBER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_generation_is_newer_than_any_number() {
        assert!(Version::compose(2, 0) > Version::compose(1, u64::MAX));
        assert!(i64::try_from(Version::compose(u64::MAX, u64::MAX).raw()).is_ok());
        assert_eq!(Version::compose(7, 5).generation(), 7);
        assert_eq!(Version::compose(7, 5).to_string(), "7.5");
    }

    #[test]
    fn a_row_without_a_number_is_no_absent_key_and_its_change_is_seen() {
        for kept in [i64::MIN, -1, 0, 1] {
            assert_eq!(Version::of_row(kept), Version::from_raw(1), "{kept}");
        }
        assert!(Version::of_row(0).raised_outside() > Version::of_row(0));
        let last = Version::of_row(i64::MAX);
        assert_eq!(last.raw(), i64::MAX.unsigned_abs());
    }
}
