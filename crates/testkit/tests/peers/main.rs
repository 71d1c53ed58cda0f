//! What users of other caching layers have complained of, one test each: the name says what holds here, the
//! comment where it did not hold. `GUARANTEES.md` has the whole table.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod acknowledged;
mod bounds;
mod end;
mod failing_store;
mod life;
#[path = "../layer/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the layer")]
mod world;

use tidegate_core::{Class, Strategy};
use world::ms;

/// A write-back class for the keys `b:*`.
fn back() -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(50))
}
