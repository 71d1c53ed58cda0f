//! What happens to the shared cache.

use std::time::Duration;

use tidegate_testkit::proxy::Faults;

use super::{Fault, Scene};
use crate::world::{Pair, World, local};

pub(super) fn all() -> Vec<Box<dyn Fault>> {
    let mut faults = losses();
    faults.push(Box::new(Paused));
    faults
}

/// All that make it another server, or one that has less than was written.
pub(super) fn losses() -> Vec<Box<dyn Fault>> {
    vec![
        Box::new(Killed { forgets: true }),
        Box::new(Killed { forgets: false }),
        Box::new(Flushed),
        Box::new(FailedOver),
        Box::new(SwitchedOver),
    ]
}

fn pair(world: &mut World) -> &mut Pair {
    world.shared.as_mut().unwrap()
}

struct Killed {
    forgets: bool,
}

impl Fault for Killed {
    fn name(&self) -> String {
        let with = if self.forgets { "nothing" } else { "its data" };
        format!("shared cache killed, back with {with}")
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        pair(scene.world).primary().kill9();
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        let primary = pair(scene.world).primary();
        if self.forgets {
            primary.restart_empty();
        } else {
            primary.restart();
        }
    }
}

struct Paused;

impl Fault for Paused {
    fn name(&self) -> String {
        "shared cache paused".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        pair(scene.world).primary().pause();
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        pair(scene.world).primary().resume();
    }
}

struct Flushed;

impl Fault for Flushed {
    fn name(&self) -> String {
        "FLUSHALL".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        pair(scene.world).primary().flush_all();
    }

    fn end(&mut self, _scene: &mut Scene<'_>) {}
}

/// The replica lags behind, the primary dies, and the replica takes its place behind the same addresses.
struct FailedOver;

impl Fault for FailedOver {
    fn name(&self) -> String {
        "failover to a lagging replica".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        let lag = Duration::from_millis(20 + scene.random.below(300));
        let pair = pair(scene.world);
        pair.wait_until_in_step();
        pair.replication.set(Faults::half_open());
        std::thread::sleep(lag);
        pair.primary().kill9();
        // What was held back is lost with the connection.
        pair.replication.cut_all();
        pair.replica().promote();
        pair.primary = 1 - pair.primary;
        let target = local(pair.primary().port());
        pair.replication.heal();
        pair.replication.set_target(target);
        for ways in &scene.world.ways {
            let way = ways.shared.as_ref().unwrap();
            way.set_target(target);
            way.cut_all();
        }
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        let pair = pair(scene.world);
        let port = pair.replication.port();
        pair.replica().follow(port);
        pair.replica().restart_empty();
    }
}

/// An operator demotes the primary and promotes the replica, which lags. Both stay, connections too: those to the old
/// one find a replica.
struct SwitchedOver;

impl Fault for SwitchedOver {
    fn name(&self) -> String {
        "primary and replica exchanged".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        let lag = Duration::from_millis(scene.random.below(100));
        let pair = pair(scene.world);
        pair.wait_until_in_step();
        pair.replication.set(Faults::half_open());
        std::thread::sleep(lag);
        // At no time do both take writes.
        let port = pair.replication.port();
        pair.primary().follow(port);
        pair.replication.cut_all();
        pair.replica().promote();
        pair.primary = 1 - pair.primary;
        let target = local(pair.primary().port());
        pair.replication.set_target(target);
        pair.replication.heal();
        for ways in &scene.world.ways {
            ways.shared.as_ref().unwrap().set_target(target);
        }
    }

    fn end(&mut self, _scene: &mut Scene<'_>) {}
}
