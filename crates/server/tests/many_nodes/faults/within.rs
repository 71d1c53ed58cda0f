//! Two faults at once: a node that is held, or badly connected, while what it relies on is lost. When it goes on, it
//! does so as if nothing had been.

use std::time::Duration;

use tidegate_testkit::sim::Random;

use super::{Fault, Scene, To, any, nodes, shared, store, ways};

/// Between the names of two faults, the inner one first.
pub(crate) const WITHIN: &str = " while ";

struct Within {
    outer: Box<dyn Fault>,
    inner: Box<dyn Fault>,
}

/// Any fault of the servers within any of a node that lasts.
pub(super) fn any_within(with_shared: bool, random: &Random) -> Box<dyn Fault> {
    // Held nodes are the likeliest to have something to say later.
    let outer: Box<dyn Fault> = match random.below(4) {
        0 => any(ways::of_one(To::Store), random),
        1 if with_shared => any(ways::of_one(To::Shared), random),
        _ => Box::new(nodes::paused()),
    };
    let inner = match with_shared && random.chance(0.75) {
        true => any(shared::losses(), random),
        false => any(store::of_process(), random),
    };
    Box::new(Within { outer, inner })
}

impl Fault for Within {
    fn name(&self) -> String {
        format!("{}{WITHIN}{}", self.inner.name(), self.outer.name())
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.outer.begin(scene);
        pause(scene.random.below(300));
        self.inner.begin(scene);
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        self.inner.end(scene);
        pause(scene.random.below(300));
        self.outer.end(scene);
    }
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
