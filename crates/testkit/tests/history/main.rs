//! The checker of histories finds every kind of violation in its smallest form and names both operations, passes what
//! a correct register does, and agrees with itself: the sweep, the search, and all orders tried one by one.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

mod agreement;
mod bad;
mod register;
mod told;
