//! What happens to the database.

use super::{Fault, Scene, To};

pub(super) fn all() -> Vec<Box<dyn Fault>> {
    let mut faults = of_process();
    faults.push(Box::new(CommitReplyLost));
    faults
}

/// What happens to its processes.
pub(super) fn of_process() -> Vec<Box<dyn Fault>> {
    vec![Box::new(Killed), Box::new(Paused)]
}

struct Killed;

impl Fault for Killed {
    fn name(&self) -> String {
        "database killed".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        scene.world.postgres.kill9();
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.world.postgres.restart();
    }
}

struct Paused;

impl Fault for Paused {
    fn name(&self) -> String {
        "database paused".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        scene.world.postgres.pause();
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.world.postgres.resume();
    }
}

/// Every node loses the answer to its next change.
struct CommitReplyLost;

impl Fault for CommitReplyLost {
    fn name(&self) -> String {
        "answer to a commit lost".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        for node in 0..scene.nodes.count() {
            scene.way(node, To::Store).lose_answer(changes);
        }
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        scene.world.heal();
    }
}

/// Whether a statement commits something.
fn changes(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words = ["commit", "insert into", "delete from", "update "];
    words.iter().any(|word| text.contains(word))
}
