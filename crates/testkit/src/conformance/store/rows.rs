//! What was put is loaded, scanned and counted; what cannot be kept is refused and changes nothing.

use bytes::Bytes;
use tidegate_core::port::{Guard, Outcome, StoreError, TableId, TableSpec, Timestamp, Write};
use tidegate_core::{Change, Key, Version};

use super::scene::Scene;
use super::{Keys, Values, case_table};

case_table!(
    what_was_put_is_loaded,
    a_load_answers_in_the_order_asked,
    every_value_comes_back_byte_by_byte,
    every_key_is_its_own,
    a_value_the_table_cannot_hold_is_refused,
    a_key_the_table_cannot_hold_is_refused_and_absent,
    a_batch_is_applied_as_a_whole_or_not,
    a_scan_goes_by_the_bytes_of_keys_in_pages,
    live_rows_are_counted,
    tables_are_apart,
    a_table_opened_twice_is_one_table,
    a_missing_table_is_made_only_if_asked,
    an_unknown_table_is_an_error,
    nothing_asked_is_nothing_done,
    a_batch_as_large_as_promised_is_taken,
    a_closed_store_says_so,
);

async fn what_was_put_is_loaded(scene: Scene) {
    let expires_at = Some(scene.later(60_007));
    let (first, existed) = scene
        .applied(scene.put_until("a", "one", expires_at, Guard::Always))
        .await;
    assert!(!existed);
    scene.expect("a", "one", first).await;
    assert_eq!(scene.load("a").await.unwrap().expires_at, expires_at);

    let (second, existed) = scene.applied(scene.put("a", "two", Guard::Always)).await;
    assert!(existed && second > first);
    scene.expect("a", "two", second).await;
    assert_eq!(scene.load("a").await.unwrap().expires_at, None);

    let (third, existed) = scene.applied(scene.delete("a", Guard::Always)).await;
    assert!(existed && third > second);
    scene.expect_absent("a").await;
    let (_, existed) = scene.applied(scene.delete("a", Guard::Always)).await;
    assert!(!existed);
    scene.store.ping().await.unwrap();
}

async fn a_load_answers_in_the_order_asked(scene: Scene) {
    let writes = ["c", "a", "b"].map(|key| scene.put(key, key, Guard::Always));
    scene.apply(writes.into()).await;
    let asked = ["b", "none", "a", "c", "b", "none", "a"];
    let keys: Vec<_> = asked.map(|key| (scene.table, Key::from(key))).into();
    let found = scene.store.load(&keys, scene.now).await.unwrap();
    let found = found.into_iter().map(|entry| entry.map(|e| e.value));
    let expected = asked.map(|key| (key != "none").then(|| scene.value(key)));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

async fn every_value_comes_back_byte_by_byte(scene: Scene) {
    let long = "x".repeat(1 << 20);
    let mut values: Vec<Bytes> = [
        "",
        "plain",
        "ünïcödé \u{1f30a}",
        "'; drop table kv; --",
        "$1",
    ]
    .map(|text| scene.value(text))
    .into();
    values.push(scene.value(&long));
    if scene.values == Values::Any {
        values.push(Bytes::from_static(b"\0"));
        values.push(Bytes::from_static(b"text\0with nul"));
        values.push(Bytes::from_static(b"\xff\xfe not text"));
        values.push((0..=255).collect());
        values.push(vec![0xff; 1 << 20].into());
    }
    // All in one batch, then each over the next one's row, so that no kind is left behind by another.
    for shift in 0..values.len() {
        let writes: Vec<_> = (0..values.len())
            .map(|i| Write {
                change: Change::Put {
                    value: values[(i + shift) % values.len()].clone(),
                    expires_at: None,
                },
                ..scene.delete(&format!("k{i}"), Guard::Always)
            })
            .collect();
        scene.apply(writes).await;
        for i in 0..values.len() {
            let entry = scene.load(&format!("k{i}")).await.unwrap();
            let expected = &values[(i + shift) % values.len()];
            assert!(entry.value == expected, "value {i} shifted by {shift}");
        }
    }
}

fn keys(scene: &Scene) -> Vec<Key> {
    let mut keys: Vec<Key> = [
        "", " ", "a", "A", "a ", "aa", "b", "%", "a'b\"c", "\u{e9}", "e\u{301}",
    ]
    .map(Key::from)
    .into();
    keys.push("\u{1f30a}".into());
    keys.push("\u{ffff}".into());
    keys.push("k".repeat(1000).into());
    if scene.keys == Keys::Any {
        let binary: [&[u8]; 6] = [b"\0", b"a\0", b"a\0b", b"\xff", b"a\xff", b"\xf0\x9f"];
        keys.extend(binary.map(Key::from));
    }
    keys
}

async fn every_key_is_its_own(scene: Scene) {
    let keys = keys(&scene);
    let put = |(i, key): (usize, &Key)| Write {
        key: key.clone(),
        ..scene.put("", &i.to_string(), Guard::Always)
    };
    scene
        .apply(keys.iter().enumerate().map(put).collect())
        .await;
    let asked: Vec<_> = keys.iter().map(|key| (scene.table, key.clone())).collect();
    let found = scene.store.load(&asked, scene.now).await.unwrap();
    for (i, entry) in found.iter().enumerate() {
        let entry = entry
            .as_ref()
            .unwrap_or_else(|| panic!("{:?} is absent", keys[i]));
        assert_eq!(entry.value, scene.value(&i.to_string()), "{:?}", keys[i]);
    }
    let delete = |key: &Key| Write {
        key: key.clone(),
        ..scene.delete("", Guard::Always)
    };
    let outcomes = scene.apply(keys.iter().map(delete).collect()).await;
    let existed = |o: &Outcome| matches!(o, Outcome::Applied { existed: true, .. });
    assert!(outcomes.iter().all(existed));
    assert_eq!(scene.store.count(scene.table, scene.now).await.unwrap(), 0);
}

/// Applies the write between two healthy ones: it must be refused, and nothing be written.
async fn expect_refused(scene: &Scene, write: Write, culprit_known: bool) {
    let writes = vec![
        scene.put("before", "x", Guard::Always),
        write,
        scene.put("after", "x", Guard::Always),
    ];
    match scene.try_apply(writes).await {
        Err(StoreError::Refused { item, .. }) if !culprit_known => {
            assert!(item.is_none_or(|item| item == 1));
        }
        Err(StoreError::Refused { item, .. }) => assert_eq!(item, Some(1)),
        other => panic!("not refused: {other:?}"),
    }
    scene.expect_absent("before").await;
    scene.expect_absent("after").await;
}

async fn a_value_the_table_cannot_hold_is_refused(scene: Scene) {
    let refused: &[&[u8]] = match scene.values {
        Values::Any => &[],
        Values::Text => &[b"\0", b"a\0", b"\xff", b"\xed\xa0\x80"],
        Values::Json => &[b"", b"{", b"\xff", b"a\0", b"{\"a\":1}}", b"nul"],
    };
    for value in refused {
        let change = Change::Put {
            value: Bytes::from_static(value),
            expires_at: None,
        };
        let write = Write {
            change,
            ..scene.delete("guilty-key", Guard::Always)
        };
        expect_refused(&scene, write.clone(), scene.values == Values::Text).await;
        let guard = Guard::IfNewer(scene.version(5));
        expect_refused(
            &scene,
            Write { guard, ..write },
            scene.values == Values::Text,
        )
        .await;
        scene.expect_absent("guilty-key").await;
    }
}

async fn a_key_the_table_cannot_hold_is_refused_and_absent(scene: Scene) {
    if scene.keys == Keys::Any {
        return;
    }
    for key in [&b"\0"[..], b"a\0b", b"\xff"].map(Key::from) {
        let put = Write {
            key: key.clone(),
            ..scene.put("", "x", Guard::Always)
        };
        expect_refused(&scene, put, true).await;
        let delete = Write {
            key: key.clone(),
            ..scene.delete("", Guard::IfNewer(scene.version(1)))
        };
        expect_refused(&scene, delete, true).await;
        let asked = [(scene.table, "before".into()), (scene.table, key.clone())];
        assert_eq!(
            scene.store.load(&asked, scene.now).await.unwrap(),
            [None, None]
        );
        // A scan may start anywhere.
        let scanned = scene
            .store
            .scan(scene.table, Some(&key), 10, scene.now)
            .await;
        assert_eq!(scanned.unwrap(), []);
    }
}

async fn a_batch_is_applied_as_a_whole_or_not(scene: Scene) {
    let out_of_range = Guard::IfNewer(Version::from_raw(u64::MAX));
    expect_refused(&scene, scene.put("bad", "x", out_of_range), true).await;
    expect_refused(&scene, scene.delete("bad", out_of_range), true).await;
    let far = Some(Timestamp::from_millis(u64::MAX));
    // A store may keep the far end of time, or refuse it; never anything between.
    let write = scene.put_until("far", "x", far, Guard::Always);
    match scene.try_apply(vec![write]).await {
        Ok(_) => assert_eq!(scene.load("far").await.unwrap().expires_at, far),
        Err(StoreError::Refused { item, .. }) => assert_eq!(item, Some(0)),
        Err(other) => panic!("{other}"),
    }
}

async fn a_scan_goes_by_the_bytes_of_keys_in_pages(scene: Scene) {
    let mut keys = keys(&scene);
    keys.extend((0..40).map(|i| Key::from(format!("row:{:02}", i * 7 % 40))));
    let put = |key: &Key| Write {
        key: key.clone(),
        ..scene.put("", "v", Guard::Always)
    };
    scene.apply(keys.iter().map(put).collect()).await;
    keys.sort();
    for limit in [1, 7, 1000] {
        let mut found: Vec<Key> = Vec::new();
        loop {
            let after = found.last().cloned();
            let store = &scene.store;
            let page = store
                .scan(scene.table, after.as_ref(), limit, scene.now)
                .await;
            let page = page.unwrap();
            assert!(page.len() <= limit);
            let end = page.len() < limit;
            for (key, entry) in page {
                assert_eq!(entry.value, scene.value("v"));
                assert!(entry.version > Version::NONE);
                found.push(key);
            }
            if end {
                break;
            }
        }
        assert_eq!(found, keys, "in pages of {limit}");
    }
    // From a key that is not there, and from one that no text is.
    for after in [&b"row:1"[..], b"row:", b"\xff\xff", b"a\0", b"\xc3"] {
        let after = Key::from(after);
        let page = scene
            .store
            .scan(scene.table, Some(&after), 1000, scene.now)
            .await;
        let page: Vec<_> = page.unwrap().into_iter().map(|row| row.0).collect();
        let expected: Vec<_> = keys.iter().filter(|key| **key > after).cloned().collect();
        assert_eq!(page, expected, "after {after:?}");
    }
    let none = scene.store.scan(scene.table, None, 0, scene.now).await;
    assert_eq!(none.unwrap(), []);
}

async fn live_rows_are_counted(scene: Scene) {
    let count = |now| scene.store.count(scene.table, now);
    assert_eq!(count(scene.now).await.unwrap(), 0);
    let mut writes = vec![scene.put("a", "x", Guard::Always)];
    for i in 0..10 {
        let until = Some(scene.later(i + 1));
        writes.push(scene.put_until(&format!("e{i}"), "x", until, Guard::Always));
    }
    scene.apply(writes).await;
    assert_eq!(count(scene.now).await.unwrap(), 11);
    assert_eq!(count(scene.later(4)).await.unwrap(), 7);
    assert_eq!(count(scene.later(10)).await.unwrap(), 1);
}

async fn tables_are_apart(scene: Scene) {
    let elsewhere = Write {
        table: scene.other,
        ..scene.put("k", "there", Guard::Always)
    };
    scene
        .apply(vec![scene.put("k", "here", Guard::Always), elsewhere])
        .await;
    let keys = [scene.other, scene.table].map(|table| (table, Key::from("k")));
    let found = scene.store.load(&keys, scene.now).await.unwrap();
    let values: Vec<_> = found
        .into_iter()
        .map(|entry| entry.unwrap().value)
        .collect();
    assert_eq!(values, ["there", "here"].map(|text| scene.value(text)));

    // What one table remembers is nothing to the other.
    scene
        .one(scene.delete("gone", Guard::IfNewer(scene.version(9))))
        .await;
    let elsewhere = Write {
        table: scene.other,
        ..scene.put("gone", "there", Guard::IfNewer(scene.version(5)))
    };
    scene.applied(elsewhere).await;
}

async fn a_table_opened_twice_is_one_table(scene: Scene) {
    let id = scene.store.open_table(&scene.spec).await.unwrap();
    assert_eq!(id, scene.table);
    let mut spec = scene.spec.clone();
    spec.columns.value = "another".into();
    match scene.store.open_table(&spec).await {
        Err(StoreError::Configuration { message }) => {
            assert!(message.contains(&spec.name), "{message}");
        }
        other => panic!("not refused: {other:?}"),
    }
}

async fn a_missing_table_is_made_only_if_asked(scene: Scene) {
    if scene.store.name() == "memory" {
        return; // Has no catalogue: every table is there.
    }
    let spec = TableSpec {
        create: false,
        ..TableSpec::named("no_such_table_at_all")
    };
    match scene.store.open_table(&spec).await {
        Err(StoreError::Configuration { message }) => {
            assert!(message.contains("no_such_table_at_all"), "{message}");
        }
        other => panic!("not refused: {other:?}"),
    }
    for name in ["", "with\0nul"] {
        let spec = TableSpec::named(name);
        let refused = scene.store.open_table(&spec).await;
        assert!(
            matches!(refused, Err(StoreError::Configuration { .. })),
            "{name:?}"
        );
    }
}

async fn an_unknown_table_is_an_error(scene: Scene) {
    let nowhere = TableId(60_000);
    let keys = [(nowhere, Key::from("k"))];
    assert!(scene.store.load(&keys, scene.now).await.is_err());
    let write = Write {
        table: nowhere,
        ..scene.put("k", "x", Guard::Always)
    };
    expect_refused(&scene, write, true).await;
    assert!(scene.store.count(nowhere, scene.now).await.is_err());
    assert!(scene.store.scan(nowhere, None, 1, scene.now).await.is_err());
}

async fn nothing_asked_is_nothing_done(scene: Scene) {
    assert_eq!(scene.apply(vec![]).await, []);
    assert_eq!(scene.store.load(&[], scene.now).await.unwrap(), []);
}

async fn a_batch_as_large_as_promised_is_taken(scene: Scene) {
    let count = scene.store.capabilities().batch_max;
    assert!(count > 0 && scene.store.capabilities().lanes > 0);
    let put = |i: usize| scene.put(&format!("k{i}"), &i.to_string(), Guard::Always);
    let outcomes = scene.apply((0..count).map(put).collect()).await;
    let keys: Vec<_> = (0..count)
        .map(|i| (scene.table, Key::from(format!("k{i}"))))
        .collect();
    let found = scene.store.load(&keys, scene.now).await.unwrap();
    for (i, (entry, outcome)) in found.into_iter().zip(outcomes).enumerate() {
        let entry = entry.unwrap();
        assert_eq!(entry.value, scene.value(&i.to_string()));
        let version = entry.version;
        let existed = false;
        assert_eq!(outcome, Outcome::Applied { version, existed });
    }
}

async fn a_closed_store_says_so(scene: Scene) {
    scene.store.close().await;
    scene.store.close().await;
    let unavailable = |error: StoreError| matches!(error, StoreError::Unavailable { .. });
    let write = vec![scene.put("a", "x", Guard::Always)];
    assert!(unavailable(scene.try_apply(write).await.unwrap_err()));
    let keys = [(scene.table, Key::from("a"))];
    assert!(unavailable(
        scene.store.load(&keys, scene.now).await.unwrap_err()
    ));
    assert!(unavailable(scene.store.ping().await.unwrap_err()));
    assert!(unavailable(
        scene.store.open_generation(0).await.unwrap_err()
    ));
}
