//! The layer over a shared cache: what several nodes do with one cache in front of one store.
//!
//! - [`audit`]: whether a cache is set up to keep what the classes promise.

mod audit;

pub use audit::{Audit, Demands};
