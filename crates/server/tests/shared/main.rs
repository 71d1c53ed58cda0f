//! Several servers over one Redis and one PostgreSQL, as processes of their own: what is written through one is read
//! through the others, whatever becomes of the Redis meanwhile.
//!
//! What is proven under faults for hours is in `tests/many_nodes`; here is what a user sees of it.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![expect(clippy::disallowed_methods, reason = "servers take real time")]

#[path = "../support/interpreter.rs"]
mod interpreter;
#[path = "../support/mod.rs"]
mod support;

mod cold;
mod faces;
mod hot;
mod loss;
mod reads;
mod settings;
mod startup;
mod world;
