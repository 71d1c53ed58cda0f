//! A PostgreSQL database that several nodes share: batches that come late, transactions that are held open, versions
//! of many writers, and what others change.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod late;
mod opened;
mod outbox;
mod proof;
mod versions;

use tidegate_core::port::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
