//! The shared cache in Redis, against private servers.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod cluster;
mod conformance;
mod differential;
mod faults;
mod scene;
mod watching;
