//! What a store offers to several nodes that share it. One that offers nothing must say so, and not pretend.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::Change;
use tidegate_core::port::{
    Batch, ClassSettings, Guard, Horizon, ManyNodes, NodeId, Outcome, Proof, StoreError, StoreTime,
    TableSpec, Write,
};

use super::case_table;
use super::scene::Scene;

case_table!(
    a_store_for_one_node_says_so,
    a_batch_in_time_is_applied_whatever_is_in_it,
    a_late_batch_writes_nothing_whatever_is_in_it,
    horizons_move_on_and_prove_what_is_past,
    nodes_that_agree_are_taken,
    a_node_that_differs_is_told_in_what,
    of_two_nodes_that_begin_at_once_one_is_taken,
    own_writes_are_no_changes_of_others,
);

async fn a_store_for_one_node_says_so(scene: Scene) {
    if scene.store.many_nodes().is_some() {
        return;
    }
    let limit = Some(StoreTime::from_micros(i64::MAX));
    let batch = Batch::new(vec![scene.put("k", "x", Guard::Always)], scene.now);
    let refused = scene.store.apply(&batch.commit_by(limit)).await;
    assert!(
        matches!(refused, Err(StoreError::Configuration { .. })),
        "{refused:?}"
    );
    scene.expect_absent("k").await;
    let spec = TableSpec {
        outbox: true,
        ..TableSpec::named("of_an_outbox")
    };
    let refused = scene.store.open_table(&spec).await;
    assert!(
        matches!(refused, Err(StoreError::Configuration { .. })),
        "{refused:?}"
    );
}

/// Batches of every kind, over rows that [`prepare`] made: with a name, and what they make of `k`.
fn kinds(scene: &Scene) -> Vec<(&'static str, Vec<Write>)> {
    let number = |text: &str, guard| Write {
        change: Change::Put {
            value: text.to_owned().into(),
            expires_at: None,
        },
        ..scene.put("number", "", guard)
    };
    let newer = |step: u64| Guard::IfNewer(scene.version(100 + step));
    let over = |step: u64| Guard::Flush {
        base: None,
        version: scene.version(100 + step),
    };
    let elsewhere = |write: Write| Write {
        table: scene.other,
        ..write
    };
    let add = Write {
        change: Change::Add { by: 1 },
        ..scene.put("number", "", Guard::Always)
    };
    vec![
        ("a put", vec![scene.put("k", "new", Guard::Always)]),
        (
            "puts of rows that are new",
            vec![
                scene.put("k", "new", Guard::Always),
                scene.put("unknown", "new", Guard::Always),
            ],
        ),
        (
            "puts of two tables",
            vec![
                scene.put("k", "new", Guard::Always),
                elsewhere(scene.put("k", "new", Guard::Always)),
            ],
        ),
        ("a put if newer", vec![scene.put("k", "new", newer(1))]),
        ("a flush", vec![scene.put("k", "new", over(2))]),
        ("an addition", vec![add]),
        ("a put after others", vec![number("7", Guard::Always)]),
        ("a delete", vec![scene.delete("k", Guard::Always)]),
        ("a guarded delete", vec![scene.delete("k", newer(3))]),
        (
            "a delete of nothing",
            vec![scene.delete("nothing", newer(4))],
        ),
        (
            "all at once",
            vec![
                scene.put("k", "new", Guard::Always),
                scene.delete("nothing", newer(5)),
                elsewhere(scene.put("k", "new", newer(5))),
            ],
        ),
    ]
}

async fn prepare(scene: &Scene) {
    let number = Write {
        change: Change::Put {
            value: "5".into(),
            expires_at: None,
        },
        ..scene.put("number", "", Guard::Always)
    };
    scene
        .apply(vec![
            scene.put("k", "old", Guard::IfNewer(scene.version(1))),
            number,
        ])
        .await;
}

/// All there is of the scene's keys.
async fn seen(scene: &Scene) -> Vec<Option<tidegate_core::Entry>> {
    let keys = ["k", "number", "unknown", "nothing"];
    let keys = keys.map(|key| (scene.table, key.into())).to_vec();
    let all = [keys, vec![(scene.other, "k".into())]].concat();
    scene.store.load(&all, scene.now).await.unwrap()
}

async fn horizon(nodes: &dyn ManyNodes) -> Horizon {
    let horizon = nodes.horizon().await.unwrap();
    assert!(horizon.oldest <= horizon.next, "{horizon:?}");
    horizon
}

async fn a_batch_in_time_is_applied_whatever_is_in_it(scene: Scene) {
    let Some(nodes) = scene.store.many_nodes() else {
        return;
    };
    for (name, writes) in kinds(&scene) {
        prepare(&scene).await;
        let limit = horizon(nodes).await.now.after(Duration::from_secs(3600));
        for limit in [limit, StoreTime::from_micros(i64::MAX)] {
            let batch = Batch::new(writes.clone(), scene.now).commit_by(Some(limit));
            let outcomes = scene.store.apply(&batch).await;
            let outcomes = outcomes.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(outcomes.len(), writes.len(), "{name}");
        }
    }
}

async fn a_late_batch_writes_nothing_whatever_is_in_it(scene: Scene) {
    let Some(nodes) = scene.store.many_nodes() else {
        return;
    };
    prepare(&scene).await;
    let before = seen(&scene).await;
    for (name, writes) in kinds(&scene) {
        let now = horizon(nodes).await.now;
        let past = StoreTime::from_micros(now.as_micros() - 1);
        for limit in [past, StoreTime::from_micros(i64::MIN)] {
            let batch = Batch::new(writes.clone(), scene.now).commit_by(Some(limit));
            let late = scene.store.apply(&batch).await;
            assert!(
                matches!(late, Err(StoreError::Late { .. })),
                "{name}: {late:?}"
            );
            assert_eq!(seen(&scene).await, before, "{name}");
        }
    }
    // Nothing was remembered either: what the late ones would have deleted is made anew at any version.
    let made = scene.put("nothing", "x", Guard::IfNewer(scene.version(1)));
    assert!(matches!(scene.one(made).await, Outcome::Applied { .. }));
}

async fn horizons_move_on_and_prove_what_is_past(scene: Scene) {
    let Some(nodes) = scene.store.many_nodes() else {
        return;
    };
    let first = horizon(nodes).await;
    let far = first.now.after(Duration::from_secs(3600));
    let mut unproven = Proof::of(far);
    let past = StoreTime::from_micros(first.now.as_micros() - 1);
    let mut proof = Proof::of(past);
    let mut last = first;
    // Other databases of the same server may hold it up for a while, but not for ever.
    for look in 0..10_000 {
        scene.applied(scene.put("k", "x", Guard::Always)).await;
        let here = horizon(nodes).await;
        assert!(here.now >= last.now, "{here:?} after {last:?}");
        assert!(here.oldest >= last.oldest, "{here:?} after {last:?}");
        // The write took a number.
        assert!(here.next > last.next, "{here:?} after {last:?}");
        last = here;
        assert!(!unproven.learn(&here), "before its time");
        if proof.learn(&here) {
            return;
        }
        assert!(look < 9_999, "not proven: {here:?}, first {first:?}");
    }
}

fn class(name: &str, settings: &[(&str, &str)]) -> ClassSettings {
    let settings = settings.iter();
    let settings = settings.map(|(name, setting)| ((*name).to_owned(), (*setting).to_owned()));
    ClassSettings {
        class: name.into(),
        settings: settings.collect::<BTreeMap<_, _>>(),
    }
}

async fn nodes_that_agree_are_taken(scene: Scene) {
    let Some(nodes) = scene.store.many_nodes() else {
        return;
    };
    let [one, other] = [NodeId(1), NodeId(u64::MAX)];
    let settings = [
        class("session", &[("level", "bounded"), ("odd\"'\\,{}", "ä\n")]),
        class("plain", &[]),
    ];
    let reversed = [settings[1].clone(), settings[0].clone()];
    nodes.agree(one, &settings).await.unwrap();
    // Another opening, as another process has it.
    let again = scene
        .again
        .as_ref()
        .and_then(|(again, _)| again.many_nodes());
    let others = again.unwrap_or(nodes);
    others.agree(other, &reversed).await.unwrap();
    nodes.agree(one, &settings).await.unwrap();
    nodes.leave(one).await.unwrap();
    // Alone it may change.
    let changed = [class("session", &[])];
    others.agree(other, &changed).await.unwrap();
    others.agree(other, &[]).await.unwrap();
    others.agree(other, &changed).await.unwrap();
    others.leave(other).await.unwrap();
    others.leave(other).await.unwrap();
}

async fn a_node_that_differs_is_told_in_what(scene: Scene) {
    let Some(nodes) = scene.store.many_nodes() else {
        return;
    };
    let [one, other] = [NodeId(1), NodeId(2)];
    let mine = [class("session", &[("level", "bounded")])];
    nodes.agree(one, &mine).await.unwrap();
    for (differs, named) in [
        (class("session", &[("level", "session")]), "level"),
        (class("session", &[]), "level"),
        (
            class("session", &[("level", "bounded"), ("ttl", "")]),
            "ttl",
        ),
    ] {
        let refused = nodes.agree(other, &[differs]).await;
        match refused {
            Err(StoreError::Configuration { message }) => {
                assert!(
                    message.contains("session") && message.contains(named),
                    "{message}"
                );
            }
            other => panic!("{other:?}"),
        }
        // It is not registered, and so in nobody's way.
        nodes.agree(one, &mine).await.unwrap();
    }
    let refused = nodes.agree(other, &[]).await;
    assert!(
        matches!(refused, Err(StoreError::Configuration { .. })),
        "{refused:?}"
    );
    // One that was taken, and then comes with others, is not registered any more.
    nodes.agree(other, &mine).await.unwrap();
    let changed = [class("session", &[("level", "linearizable")])];
    assert!(nodes.agree(other, &changed).await.is_err());
    nodes.agree(one, &mine).await.unwrap();
    nodes.leave(one).await.unwrap();
    nodes.agree(other, &changed).await.unwrap();
    nodes.leave(other).await.unwrap();
}

async fn of_two_nodes_that_begin_at_once_one_is_taken(scene: Scene) {
    if scene.store.many_nodes().is_none() {
        return;
    }
    for round in 0..20_u64 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..4_u64 {
            let store = match &scene.again {
                Some((again, _)) if number % 2 == 1 => again,
                _ => &scene.store,
            };
            let store = std::sync::Arc::clone(store);
            tasks.spawn(async move {
                let nodes = store.many_nodes().unwrap();
                let node = NodeId(1000 + round * 10 + number);
                let settings = [class("c", &[("number", &number.to_string())])];
                nodes.agree(node, &settings).await.is_ok()
            });
        }
        let taken = tasks.join_all().await.into_iter().filter(|taken| *taken);
        assert_eq!(taken.count(), 1, "round {round}");
        let nodes = scene.store.many_nodes().unwrap();
        for number in 0..4 {
            nodes
                .leave(NodeId(1000 + round * 10 + number))
                .await
                .unwrap();
        }
    }
}

async fn own_writes_are_no_changes_of_others(scene: Scene) {
    let Some(nodes) = scene.store.many_nodes() else {
        return;
    };
    for (_, writes) in kinds(&scene) {
        prepare(&scene).await;
        scene.apply(writes).await;
    }
    let soon = scene.put_until("dies", "x", Some(scene.later(1)), Guard::Always);
    scene.applied(soon).await;
    let day = Duration::from_secs(24 * 60 * 60);
    let later = scene.later(10);
    let swept = scene.store.sweep(scene.table, later, day, 100).await;
    assert_eq!(swept.unwrap().expired, 1);
    let outside = nodes.outside_changes(None, 10).await.unwrap();
    let own = [scene.table, scene.other];
    // A delete that found nothing may be told: others may be about to make the row, with an older version.
    let told = outside.changes.iter().filter(|change| {
        let of_nothing = change.key == Some("nothing".into());
        own.contains(&change.table) && !of_nothing
    });
    assert_eq!(told.count(), 0);
    assert_eq!(nodes.outside_changes(None, 0).await.unwrap().changes, []);
}
