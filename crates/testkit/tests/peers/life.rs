//! Lives of a process that end where they stand, one after the other, over one disk and one store.

use crate::world::World;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Runs a life to the end of its body. Whatever it started and did not wait for dies at the await it stands
/// at.
pub(crate) fn live<T>(body: impl Future<Output = T>) -> T {
    runtime().block_on(body)
}

/// A life that ends in a crash: what was not synced is lost, a commit under way is done or not.
pub(crate) fn crash<T>(world: &World, body: impl Future<Output = T>) -> T {
    let seen = live(body);
    world.disk.crash(&world.random);
    live(world.store.crash());
    seen
}
