//! The shared cache in Redis, against private servers.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

mod differential;
mod faults;
mod scene;
