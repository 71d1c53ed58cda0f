//! What goes wrong during a run: one fault after the other, each with its end, and some within others.

mod late;
mod nodes;
mod shared;
mod store;
mod ways;
mod within;

pub(crate) use within::WITHIN;

use tidegate_testkit::proxy::Proxy;
use tidegate_testkit::sim::Random;

use crate::subject::Nodes;
use crate::world::World;

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

/// The end of a way of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Store,
    Shared,
}

impl To {
    fn name(self) -> &'static str {
        match self {
            Self::Store => "database",
            Self::Shared => "shared cache",
        }
    }
}

/// All faults that a world can have, each once, and a few within others.
pub(crate) fn all(with_shared: bool, random: &Random) -> Vec<Box<dyn Fault>> {
    let mut faults = nodes::all();
    faults.extend(store::all());
    faults.extend(ways::all(To::Store));
    if with_shared {
        faults.extend(shared::all());
        faults.extend(ways::all(To::Shared));
        faults.extend(late::all());
    }
    let count = if with_shared { 6 } else { 2 };
    faults.extend((0..count).map(|_| within::any_within(with_shared, random)));
    faults
}

/// One of these.
fn any(mut faults: Vec<Box<dyn Fault>>, random: &Random) -> Box<dyn Fault> {
    let place = random.below(faults.len() as u64);
    faults.swap_remove(usize::try_from(place).unwrap())
}
