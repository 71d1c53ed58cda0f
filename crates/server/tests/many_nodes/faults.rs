//! What goes wrong during a run: one fault after the other, each with its end.

use std::time::Duration;

use tidegate_testkit::proxy::{Direction, Faults, Proxy};
use tidegate_testkit::sim::Random;

use super::subject::Nodes;
use super::world::{World, local};

/// Where a fault happens.
pub(crate) struct Scene<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) nodes: &'a dyn Nodes,
    pub(crate) random: &'a Random,
}

impl Scene<'_> {
    fn any_node(&self) -> usize {
        usize::try_from(self.random.below(self.nodes.count() as u64)).unwrap()
    }

    /// A way of one node, to the store or to the shared cache.
    fn way(&self, node: usize, to: To) -> &Proxy {
        let ways = &self.world.ways[node];
        match to {
            To::Store => &ways.store,
            To::Shared => ways.shared.as_ref().unwrap(),
        }
    }
}

/// Something that goes wrong for a while.
pub(crate) trait Fault {
    fn name(&self) -> String;
    fn begin(&mut self, scene: &mut Scene<'_>);
    fn end(&mut self, scene: &mut Scene<'_>);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Store,
    Shared,
}

/// All faults that a world can have.
pub(crate) fn all(with_shared: bool) -> Vec<Box<dyn Fault>> {
    let mut faults: Vec<Box<dyn Fault>> = vec![
        Box::new(NodeKilled(0)),
        Box::new(NodePaused(0)),
        Box::new(StoreKilled),
        Box::new(StorePaused),
        Box::new(CommitReplyLost),
        Box::new(NodeKilledOverPausedStore(0)),
    ];
    faults.extend(ways(To::Store));
    if with_shared {
        faults.push(Box::new(SharedKilled));
        faults.push(Box::new(SharedPaused));
        faults.push(Box::new(SharedFlushed));
        faults.push(Box::new(SharedFailedOver));
        faults.extend(ways(To::Shared));
    }
    faults
}

fn ways(to: To) -> [Box<dyn Fault>; 5] {
    [
        Box::new(Cut(to)),
        Box::new(AnswerCut(to)),
        Box::new(Delayed(to, 0)),
        Box::new(HalfOpen(to, 0)),
        Box::new(OneWay(to, 0)),
    ]
}

struct NodeKilled(usize);

impl Fault for NodeKilled {
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

struct NodePaused(usize);

impl Fault for NodePaused {
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

struct StoreKilled;

impl Fault for StoreKilled {
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

struct StorePaused;

impl Fault for StorePaused {
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

/// The node dies while its statements wait, and its next life begins while they are carried out.
struct NodeKilledOverPausedStore(usize);

impl Fault for NodeKilledOverPausedStore {
    fn name(&self) -> String {
        "node killed while the database is paused".into()
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

/// All connections of all nodes.
struct Cut(To);

impl Fault for Cut {
    fn name(&self) -> String {
        format!("connections to {:?} cut", self.0)
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
        format!("answer of {:?} cut", self.0)
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
        format!("way to {:?} delayed", self.0)
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        self.1 = scene.any_node();
        let delay = Duration::from_millis(1 + scene.random.below(30));
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
        format!("way to {:?} half open", self.0)
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
        format!("only one way to {:?}", self.0)
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

/// It comes back with nothing: it keeps nothing on disk.
struct SharedKilled;

impl Fault for SharedKilled {
    fn name(&self) -> String {
        "shared cache killed".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        let pair = scene.world.shared.as_mut().unwrap();
        pair.servers[pair.primary].kill9();
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        let pair = scene.world.shared.as_mut().unwrap();
        pair.servers[pair.primary].restart();
    }
}

struct SharedPaused;

impl Fault for SharedPaused {
    fn name(&self) -> String {
        "shared cache paused".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        let pair = scene.world.shared.as_mut().unwrap();
        pair.servers[pair.primary].pause();
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        let pair = scene.world.shared.as_mut().unwrap();
        pair.servers[pair.primary].resume();
    }
}

struct SharedFlushed;

impl Fault for SharedFlushed {
    fn name(&self) -> String {
        "FLUSHALL".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        let pair = scene.world.shared.as_ref().unwrap();
        pair.servers[pair.primary].flush_all();
    }

    fn end(&mut self, _scene: &mut Scene<'_>) {}
}

/// The replica lags behind, the primary dies, and the replica takes its place behind the same addresses.
struct SharedFailedOver;

impl Fault for SharedFailedOver {
    fn name(&self) -> String {
        "failover to a lagging replica".into()
    }

    fn begin(&mut self, scene: &mut Scene<'_>) {
        let pair = scene.world.shared.as_mut().unwrap();
        let (old, new) = (pair.primary, 1 - pair.primary);
        let primary = &pair.servers[old];
        pair.servers[new].wait_until_in_step_with(primary);
        pair.replication.set(Faults::half_open());
        std::thread::sleep(Duration::from_millis(20 + scene.random.below(300)));
        pair.servers[old].kill9();
        // What was held back is lost with the connection.
        pair.replication.cut_all();
        pair.servers[new].promote();
        pair.primary = new;
        let target = local(pair.servers[new].port());
        pair.replication.heal();
        pair.replication.set_target(target);
        for ways in &scene.world.ways {
            let way = ways.shared.as_ref().unwrap();
            way.set_target(target);
            way.cut_all();
        }
    }

    fn end(&mut self, scene: &mut Scene<'_>) {
        let pair = scene.world.shared.as_mut().unwrap();
        let (old, port) = (1 - pair.primary, pair.replication.port());
        pair.servers[old].follow(port);
        pair.servers[old].restart_empty();
    }
}
