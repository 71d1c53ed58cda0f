//! What happens to a node.

use std::time::Duration;

use super::{Fault, Scene};

pub(super) fn all() -> Vec<Box<dyn Fault>> {
    vec![
        Box::new(Killed(0)),
        Box::new(paused()),
        Box::new(KilledOverPausedStore(0)),
    ]
}

/// Longer than a write may take from its mark to its commit, mostly.
pub(super) fn paused() -> Paused {
    Paused(0)
}

struct Killed(usize);

impl Fault for Killed {
    fn name(&self) -> String {
        "node killed".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.0 = scene.any_node();
        scene.nodes.kill(self.0);
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.nodes.start(self.0);
    }
}

pub(super) struct Paused(usize);

impl Fault for Paused {
    fn name(&self) -> String {
        "node paused".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.0 = scene.any_node();
        scene.nodes.pause(self.0);
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.nodes.resume(self.0);
    }
}

/// The node dies while its statements wait, and its next life begins while they are carried out.
struct KilledOverPausedStore(usize);

impl Fault for KilledOverPausedStore {
    fn name(&self) -> String {
        "node killed over a paused database".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.0 = scene.any_node();
        scene.world.postgres.pause();
        std::thread::sleep(Duration::from_millis(100));
        scene.nodes.kill(self.0);
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.world.postgres.resume();
        scene.nodes.start(self.0);
    }
}
