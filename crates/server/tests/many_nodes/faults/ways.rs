//! What happens between a node and the others.

use std::time::Duration;

use tidegate_testkit::proxy::{Direction, Faults};

use super::{Fault, Scene, To};

pub(super) fn all(to: To) -> Vec<Box<dyn Fault>> {
    let mut faults = of_one(to);
    faults.push(Box::new(Cut(to)));
    faults.push(Box::new(AnswerCut(to)));
    faults
}

/// What lasts and happens to one node.
pub(super) fn of_one(to: To) -> Vec<Box<dyn Fault>> {
    vec![
        Box::new(Delayed(to, 0)),
        Box::new(HalfOpen(to, 0)),
        Box::new(OneWay(to, 0)),
    ]
}

/// All connections of all nodes.
struct Cut(To);

impl Fault for Cut {
    fn name(&self) -> String {
        format!("connections to the {} cut", self.0.name())
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        for node in 0..scene.nodes.count() {
            scene.way(node, self.0).cut_all();
        }
    }

    fn end(&mut self, _scene: &mut Scene<'_>) {}
}

/// In the middle of an answer, or before it.
struct AnswerCut(To);

impl Fault for AnswerCut {
    fn name(&self) -> String {
        format!("answer of the {} cut", self.0.name())
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        for node in 0..scene.nodes.count() {
            let bytes = scene.random.below(2) * scene.random.below(500);
            let way = scene.way(node, self.0);
            way.cut_after(Direction::ToClient, bytes);
        }
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.world.heal();
    }
}

struct Delayed(To, usize);

impl Fault for Delayed {
    fn name(&self) -> String {
        format!("way to the {} delayed", self.0.name())
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.1 = scene.any_node();
        // A little, or longer than a node waits for an answer of the shared cache.
        let most = if scene.random.chance(0.3) { 500 } else { 30 };
        let delay = Duration::from_millis(1 + scene.random.below(most));
        let way = scene.way(self.1, self.0);
        way.set(Faults::delayed(delay, delay * 2));
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.way(self.1, self.0).heal();
    }
}

struct HalfOpen(To, usize);

impl Fault for HalfOpen {
    fn name(&self) -> String {
        format!("way to the {} half open", self.0.name())
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.1 = scene.any_node();
        scene.way(self.1, self.0).set(Faults::half_open());
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.way(self.1, self.0).heal();
    }
}

struct OneWay(To, usize);

impl Fault for OneWay {
    fn name(&self) -> String {
        format!("only one way to the {}", self.0.name())
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.1 = scene.any_node();
        let directions = [Direction::ToServer, Direction::ToClient];
        let direction = directions[usize::from(scene.random.chance(0.5))];
        let way = scene.way(self.1, self.0);
        way.set(Faults::only(direction));
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.way(self.1, self.0).heal();
    }
}
