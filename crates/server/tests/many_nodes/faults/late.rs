//! Writes that come to the database when nobody expects them any more: their marks have run out and were swept.

use std::time::Duration;

use tidegate_testkit::proxy::Faults;

use super::{Fault, Scene, To};

pub(super) fn all() -> Vec<Box<dyn Fault>> {
    vec![
        Box::new(Late {
            node: 0,
            node_dies: false,
        }),
        Box::new(Late {
            node: 0,
            node_dies: true,
        }),
    ]
}

/// What a node has sent is held back for longer than it may take to its commit. When it arrives the node is slow to
/// tell the shared cache, or dies over it.
struct Late {
    node: usize,
    node_dies: bool,
}

/// Until every node has looked for marks that have run out.
const SWEPT: Duration = Duration::from_millis(1200);

impl Fault for Late {
    fn name(&self) -> String {
        let then = if self.node_dies { "dies" } else { "is slow" };
        format!("writes of a node are late, and it {then}")
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.node = scene.any_node();
        scene.way(self.node, To::Store).set(Faults::half_open());
        std::thread::sleep(SWEPT);
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        let (to_store, to_shared) = (
            scene.way(self.node, To::Store),
            scene.way(self.node, To::Shared),
        );
        if !self.node_dies {
            let delay = Duration::from_millis(60);
            to_shared.set(Faults::delayed(delay, delay));
        }
        to_store.heal();
        std::thread::sleep(Duration::from_millis(scene.random.below(10)));
        if self.node_dies {
            scene.nodes.kill(self.node);
            scene.nodes.start(self.node);
        } else {
            std::thread::sleep(Duration::from_millis(300));
            to_shared.heal();
        }
    }
}
