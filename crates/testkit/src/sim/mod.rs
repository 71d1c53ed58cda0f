//! Simulation of the layer: virtual time, faulty ports, crashes at any await, and a checker of what happened.
//!
//! A [`Scenario`] is drawn from a seed. It runs the real layer of `tidegate-core`, single-threaded under
//! paused time, over a [`FaultyStore`] and a [`FaultyJournal`]; several clients read and write a few hot keys.
//! A crash drops the whole runtime, so every task dies at the await it stands at; what was not synced is
//! lost, wholly or in part; the next life replays the journal. At the end all faults are healed, the gate is
//! drained, and the [`History`] of all lives is checked against the store.
//!
//! The same seed gives the same run.

mod applied;
mod check;
mod client;
mod clock;
mod history;
mod journal;
mod random;
mod run;
mod scenario;
mod store;
mod world;

pub use clock::SimClock;
pub use history::{Event, History, Kind, Outcome, Row, Violation};
pub use journal::{FaultyJournal, JournalFaults, SimDisk};
pub use random::Random;
pub use run::run;
pub use scenario::{Figures, Mutation, Report, Scenario};
pub use store::{FaultyStore, StoreCalls, StoreFaults};
