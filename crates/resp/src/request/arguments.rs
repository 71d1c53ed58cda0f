//! Where the arguments of a request lie in its bytes: six places without an allocation, the rest in a vector.
//!
//! Six hold `SET key value EX seconds NX`. Keeping ranges instead of one shared handle per argument saves an atomic
//! increment and a decrement per argument.

use std::ops::Range;

const INLINE_PLACES: usize = 6;

/// One range of a request's bytes. Requests are shorter than 4 GiB (see `RequestLimits`), so 32 bits are enough.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// A range; `None` if it lies beyond 4 GiB.
    pub(super) fn new(start: usize, end: usize) -> Option<Self> {
        Some(Self {
            start: u32::try_from(start).ok()?,
            end: u32::try_from(end).ok()?,
        })
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A list of ranges that grows only as ranges are really added.
#[derive(Clone, Default)]
pub(super) struct Spans {
    count: usize,
    inline: [Span; INLINE_PLACES],
    spill: Vec<Span>,
}

impl Spans {
    pub(super) fn push(&mut self, span: Span) {
        match self.inline.get_mut(self.count) {
            Some(place) => *place = span,
            None => self.spill.push(span),
        }
        self.count += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, place: usize) -> Option<Span> {
        if place >= self.count {
            return None;
        }
        match self.inline.get(place) {
            Some(span) => Some(*span),
            None => self.spill.get(place - INLINE_PLACES).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_in_order_on_both_sides_of_the_inline_places() {
        let mut spans = Spans::default();
        for n in 0..20 {
            assert!(spans.get(n).is_none());
            spans.push(Span::new(n, 2 * n).expect("small"));
            assert_eq!(spans.len(), n + 1);
        }
        for n in 0..20 {
            assert_eq!(spans.get(n).expect("pushed").range(), n..2 * n);
        }
    }

    #[test]
    fn a_range_beyond_four_gibibytes_is_refused() {
        assert!(Span::new(0, u32::MAX as usize).is_some());
        assert!(Span::new(0, u32::MAX as usize + 1).is_none());
    }
}
