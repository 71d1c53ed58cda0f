//! Settings that all nodes must share: a node that differs is refused when it opens, and says so if it is found to
//! differ later.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Shared, SharedSettings, covers, many_nodes};
use crate::class::{Class, Conflict, Level, Strategy};
use crate::error::Result;
use crate::layer::Layer;
use crate::port::{ClassSettings, NodeId, SharedCache, Store, StoreError};

/// How often a node says that it is live: several times before it counts as dead.
const INTERVAL: Duration = Duration::from_secs(5);

/// The name under which the settings stand that are of no class. No class can have it.
const OF_ALL: &str = "[shared]";

/// Registers a node that opens.
///
/// # Errors
/// Configuration, naming class and setting, if a live node has others; unavailable if the store does not answer.
pub(crate) async fn join(
    store: &dyn Store,
    cache: &dyn SharedCache,
    settings: SharedSettings,
    node: NodeId,
    classes: &[Class],
) -> Result<()> {
    let settings = of_node(cache, settings, classes);
    many_nodes(store)?.agree(node, &settings).await?;
    Ok(())
}

/// Says that the node is live until the layer stops, and then that it is gone.
pub(super) async fn drive(layer: Arc<Layer>) {
    let Some(shared) = &layer.shared else {
        return;
    };
    let settings = of_node(&*shared.cache, shared.settings, layer.classes.classes());
    loop {
        layer.sleep_or_stop(INTERVAL).await;
        let Ok(many_nodes) = many_nodes(&*layer.store) else {
            return;
        };
        if layer.is_stopping() {
            if let Err(error) = many_nodes.leave(shared.node).await {
                tracing::debug!(%error, "the node could not say that it ends");
            }
            return;
        }
        match many_nodes.agree(shared.node, &settings).await {
            Ok(()) => note(shared, None),
            Err(StoreError::Configuration { message }) => note(shared, Some(message.to_string())),
            Err(error) => tracing::debug!(%error, "the node could not say that it is live"),
        }
    }
}

fn note(shared: &Shared, disagreement: Option<String>) {
    let mut known = shared
        .disagreement
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if *known == disagreement {
        return;
    }
    match &disagreement {
        Some(why) => tracing::error!(
            why,
            "another node was started with other settings: what the nodes promise together does not hold"
        ),
        None => tracing::info!("all nodes have the same settings again"),
    }
    *known = disagreement;
}

/// What must be the same everywhere: what decides where a key is, who may write it when, and what a write means.
fn of_node(
    cache: &dyn SharedCache,
    settings: SharedSettings,
    classes: &[Class],
) -> Vec<ClassSettings> {
    let all = ClassSettings {
        class: OF_ALL.into(),
        settings: BTreeMap::from([
            ("shards".to_owned(), cache.shards().to_string()),
            (
                "mark_timeout".to_owned(),
                format!("{:?}", settings.mark_timeout),
            ),
        ]),
    };
    let classes = classes.iter().map(of_class);
    std::iter::once(all).chain(classes).collect()
}

fn of_class(class: &Class) -> ClassSettings {
    let mut settings = BTreeMap::from([
        ("keys".to_owned(), class.keys.as_str().to_owned()),
        ("strategy".to_owned(), class.strategy.as_str().to_owned()),
    ]);
    let mut add = |name: &str, value: String| {
        settings.insert(name.to_owned(), value);
    };
    if covers(class.strategy) {
        let columns = &class.table.columns;
        add("table", class.table.name.clone());
        add("key column", columns.key.clone());
        add("value column", columns.value.clone());
        let level = match class.level {
            Level::Bounded(by) => format!("bounded({by:?})"),
            level => level.as_str().to_owned(),
        };
        add("level", level);
        add("codec", class.codec.as_str().to_owned());
    }
    if class.strategy == Strategy::WriteBack {
        add(
            "durability",
            format!("{:?}", class.durability).to_lowercase(),
        );
        add("delta", class.delta.to_string());
        let conflict = match class.conflict {
            Conflict::StoreWins => "store-wins",
            Conflict::CacheWins => "cache-wins",
            Conflict::Merge(_) => "merge",
        };
        add("conflict", conflict.to_owned());
    }
    ClassSettings {
        class: class.name.as_str().into(),
        settings,
    }
}

/// What a node that leaves half-way through its opening says.
pub(crate) async fn leave(layer: &Layer) {
    if let Some(shared) = &layer.shared
        && let Ok(many_nodes) = many_nodes(&*layer.store)
    {
        drop(many_nodes.leave(shared.node).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::disagreement;

    #[test]
    fn classes_that_differ_in_what_a_write_means_disagree() {
        let differ = |a: Class, b: Class| disagreement(&[of_class(&a)], &[of_class(&b)]);
        let class = || Class::new("c", "c:*");
        assert_eq!(differ(class(), class().ttl(Duration::from_secs(9))), None);
        for (other, named) in [
            (class().strategy(Strategy::WriteAround), "`strategy`"),
            (class().table("other"), "`table`"),
            (
                class().level(Level::Bounded(Duration::from_secs(1))),
                "`level`",
            ),
            (Class::new("c", "d:*"), "`keys`"),
        ] {
            let told = differ(class(), other).unwrap();
            assert!(told.contains("'c'") && told.contains(named), "{told}");
        }
    }
}
