//! Conformance suites and fixtures.

pub mod conformance;
pub mod history;
pub mod proxy;
pub mod servers;
pub mod sim;
