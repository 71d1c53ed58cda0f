//! A moment as `timestamptz` has it, exact to the millisecond.

use std::error::Error;

use bytes::BytesMut;
use tidegate_core::port::{StoreTime, Timestamp};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Microseconds since 2000-01-01, as they go over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment(i64);

/// From the Unix epoch to 2000-01-01, in milliseconds.
const EPOCH_MILLIS: u64 = 946_684_800_000;
/// The end of what `timestamptz` holds: the year 294277.
const END_MICROS: i64 = 9_223_371_331_200_000_000;
/// Its beginning: 4714 BC.
const START_MICROS: i64 = -211_813_488_000_000_000;

impl Moment {
    /// The moment, unless it lies beyond the range of the type.
    pub(super) fn exact(at: Timestamp) -> Option<Self> {
        let millis = at.as_millis().cast_signed();
        let micros = millis
            .checked_sub(EPOCH_MILLIS.cast_signed())?
            .checked_mul(1000)?;
        (at.as_millis() <= i64::MAX.unsigned_abs() && micros < END_MICROS).then_some(Self(micros))
    }

    /// The moment, or the last one there is.
    pub(super) fn at_most(at: Timestamp) -> Self {
        Self::exact(at).unwrap_or(Self(END_MICROS - 1000))
    }

    /// The first moment whose millisecond is after this one's: what others wrote with microseconds counts
    /// for its whole millisecond.
    pub(super) fn end(self) -> Self {
        Self(self.0 + 1000)
    }

    /// A moment of the server's clock, to the microsecond; beyond the range of the type it is one of its infinities.
    pub(super) fn of_store(at: StoreTime) -> Self {
        let micros = at
            .as_micros()
            .saturating_sub(EPOCH_MILLIS.cast_signed() * 1000);
        Self(match micros {
            START_MICROS..END_MICROS => micros,
            ..START_MICROS => i64::MIN,
            END_MICROS.. => i64::MAX,
        })
    }

    /// The same backwards.
    pub(super) fn store_time(self) -> StoreTime {
        StoreTime::from_micros(self.0.saturating_add(EPOCH_MILLIS.cast_signed() * 1000))
    }

    /// In whole milliseconds; nothing for `infinity`.
    pub(super) fn timestamp(self) -> Option<Timestamp> {
        if self.0 == i64::MAX {
            return None;
        }
        let millis = self.0.div_euclid(1000) + EPOCH_MILLIS.cast_signed();
        Some(Timestamp::from_millis(u64::try_from(millis).unwrap_or(0)))
    }
}

impl ToSql for Moment {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_kept_and_the_far_end_is_known() {
        for millis in [
            0,
            1,
            946_684_799_999,
            1_700_000_000_123,
            9_000_000_000_000_000,
        ] {
            let at = Timestamp::from_millis(millis);
            assert_eq!(Moment::exact(at).unwrap().timestamp(), Some(at));
        }
        for millis in [
            u64::MAX,
            1 << 63,
            i64::MAX.unsigned_abs(),
            9_300_000_000_000_000,
        ] {
            assert_eq!(Moment::exact(Timestamp::from_millis(millis)), None);
        }
        for micros in [0, -1, 1_700_000_000_123_456, -9_000_000_000_000, i64::MAX] {
            let at = StoreTime::from_micros(micros);
            assert_eq!(Moment::of_store(at).store_time(), at);
        }
        assert_eq!(
            Moment::of_store(StoreTime::from_micros(i64::MIN)).0,
            i64::MIN
        );
        assert_eq!(Moment(i64::MAX).timestamp(), None);
        assert_eq!(
            Moment(i64::MIN).timestamp(),
            Some(Timestamp::from_millis(0))
        );
    }
}
