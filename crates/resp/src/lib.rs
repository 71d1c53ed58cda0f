//! The Redis protocol as a pure codec.
