//! The hasher of the layer's maps.
//!
//! Seeded through the [`Clock`](crate::port::Clock), so that a client cannot aim at one lane or one bucket,
//! and a simulation repeats from its seed.

pub(crate) use foldhash::fast::FixedState as Hasher;
