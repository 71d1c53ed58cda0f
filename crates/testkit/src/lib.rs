//! Conformance suites and fixtures.

pub mod conformance;
pub mod servers;
