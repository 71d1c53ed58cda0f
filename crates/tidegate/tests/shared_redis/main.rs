//! The shared cache in Redis, against private servers.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod answers;
mod cluster;
mod conformance;
mod copies;
mod differential;
mod faults;
mod load;
mod scene;
mod watching;
