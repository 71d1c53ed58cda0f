//! One suite per port: what every implementation must do, as named cases for an adapter's author to run.

pub mod journal;
pub mod shared_cache;
pub mod store;
