//! Conformance suites and fixtures.

pub mod conformance;
pub mod servers;
pub mod sim;
