//! Conformance suites and fixtures.
