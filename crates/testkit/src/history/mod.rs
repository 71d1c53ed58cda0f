//! What clients of a running system asked for and were answered, and whether any order of events explains it.
//!
//! Clients record into a [`ClientLog`] each, all by one [`RunClock`]. Every write puts a [`Value`] that no other
//! write puts. Afterwards the logs are one [`History`], and it is checked:
//!
//! | check | holds | needs | cost for n operations |
//! |---|---|---|---|
//! | [`History::check_linearizable`] | I1: one order of each key's reads and writes agrees with real time | the [`WriteOrder`] | O(n log n) |
//! | [`History::check_bounded`] | I2: no read is older than a bound; writes are as in I1 | the [`WriteOrder`] | O(n log n) |
//! | [`History::check_sessions`] | I3: no session goes back, nor behind its own writes | the [`WriteOrder`] | O(n log n) |
//! | [`History::check_end`] | I4 to I7: nothing lost, invented or resurrected; caches agree with rows | the [`WriteOrder`] and the [`EndState`]s | O(n) |
//! | [`History::search`] | I1, where no order of writes is known | nothing | exponential at worst; has a time limit |
//!
//! The order of writes comes from the database: a trigger appends every change of a row to a table, under the lock of
//! the row, so that the table has the order of commits. With the order known, that every operation answers with at
//! least what was complete when it began is necessary and sufficient for a register, and no search is needed. A
//! violation is two operations that contradict each other.
//!
//! # What is not seen
//! A delete without a [version](Answer::version) is held only to what it promises: that the key was absent at some
//! moment while it ran. Which of the deletes made which row go is not asked.

mod bounded;
mod end;
mod operation;
mod order;
mod search;
mod sweep;
mod violation;

pub use end::EndState;
pub use operation::{Answer, ClientLog, History, Kind, Operation, Outcome, RunClock, Value};
pub use order::{Commit, WriteOrder};
pub use search::Verdict;
pub use violation::Violation;
