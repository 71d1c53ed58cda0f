//! Conformance suites and fixtures.

pub mod conformance;
pub mod proxy;
pub mod servers;
pub mod sim;
