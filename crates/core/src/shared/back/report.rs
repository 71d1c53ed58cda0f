//! Flushing on request, and what is left.

use std::time::Duration;

use futures_util::future::select;

use super::Back;
use super::watch::{covered, looked};
use crate::layer::Layer;
use crate::port::{Shard, Timestamp};
use crate::receipt::{ClassFlush, FlushReport};

/// How often it is looked whether other nodes have flushed what they had claimed.
const LOOK: Duration = Duration::from_millis(20);

/// Brings everything that is dirty in the cache now, of whatever class and node, to the store, and returns when the
/// store has it or refuses it, at the latest after `deadline`. A report on the class `only` names, or all.
pub(crate) async fn flush(
    layer: &Layer,
    back: &Back,
    only: Option<usize>,
    deadline: Duration,
) -> FlushReport {
    let mut report = FlushReport::default();
    let classes: Vec<usize> = covered(layer)
        .filter(|class| only.is_none_or(|only| only == *class))
        .collect();
    if classes.is_empty() {
        return report;
    }
    let before: Vec<u64> = classes.iter().map(|class| flushed(layer, *class)).collect();
    let began = layer.clock.now();
    let mut left: Vec<Shard> = (0..back.shards).map(Shard).collect();
    {
        let all = std::pin::pin!(async {
            let mut is_asked = false;
            while !left.is_empty() {
                let settled = back.due.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                left = unflushed(layer, back, &left, began).await;
                if left.is_empty() {
                    break;
                }
                let now = layer.clock.elapsed();
                for shard in &left {
                    back.due.at(*shard, now);
                }
                if !is_asked {
                    back.due.asked.notify_one();
                    is_asked = true;
                }
                select(settled, layer.clock.sleep(LOOK)).await;
            }
        });
        select(all, layer.clock.sleep(deadline)).await;
    }
    let total = back.room.total();
    let mut unflushed = 0;
    for shard in left {
        let dirty = back.room.of(shard);
        // A shard that does not tell may have something.
        unflushed += dirty.entries.saturating_sub(dirty.parked).max(1);
    }
    for (class, before) in classes.into_iter().zip(before) {
        let flushed = flushed(layer, class).saturating_sub(before);
        report.flushed += flushed;
        report.classes.push(ClassFlush {
            class: layer.class(class).name.clone(),
            flushed,
            left: unflushed,
            parked: back.letters.count(layer, Some(class)).min(total.parked),
        });
    }
    report.left += unflushed;
    report.parked += match only {
        Some(class) => back.letters.count(layer, Some(class)).min(total.parked),
        None => total.parked,
    };
    report
}

/// Those of the shards that have something dirty which was written before, or that do not tell.
async fn unflushed(layer: &Layer, back: &Back, shards: &[Shard], before: Timestamp) -> Vec<Shard> {
    let looked = looked(layer, back, shards).await;
    back.room.learn_all(&looked, None);
    let is_flushed = |shard: &&Shard| {
        let dirty = looked.iter().find(|(looked, _)| looked == *shard);
        dirty.is_some_and(|(_, dirty)| {
            dirty.entries <= dirty.parked || dirty.oldest.is_none_or(|oldest| oldest > before)
        })
    };
    let mut left: Vec<Shard> = shards.to_vec();
    left.retain(|shard| !is_flushed(&shard));
    left
}

fn flushed(layer: &Layer, class: usize) -> u64 {
    let counters = &layer.state(class).counters;
    counters.flushed.get() + counters.superseded.get()
}
