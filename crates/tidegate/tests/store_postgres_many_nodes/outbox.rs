//! What others change, as nodes read it.

use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{
    Batch, Columns, Guard, Outcome, OutsideCursor, Store, StoreTime, TableId, TableSpec, ValueType,
    Write,
};

use crate::NOW;
use crate::opened::{Opened, open, watched};

/// The version that is kept of a key: of its row, or of its deletion.
fn kept(opened: &Opened, key: &str) -> u64 {
    let kept = opened.sql(&format!(
        "select max(version) from (
             select version from kv where key = '{key}' union all
             select version from tidegate_tombstone where key = '{key}' and table_name = 'public.kv'
         ) as all_versions"
    ));
    kept.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_others_is_told_once_and_raises_the_version() {
    let opened = Opened::new().await;
    let kv = opened.table;
    let mut cursor = None;
    let mut before = 0;
    let put = "insert into kv (key, value, version) values ('k', 'x', 0)";
    for sql in [
        put,
        "update kv set value = 'y' where key = 'k'",
        "update kv set version = 1 where key = 'k'",
        "update kv set version = version + 1000 where key = 'k'",
        "delete from kv where key = 'k'",
        "insert into kv (key, value) values ('k', 'z')",
        "insert into kv (key, value) values ('k', 'z') on conflict (key) do update set value = 'a'",
        "insert into kv (key, value, version) values ('k', 'z', 5)
         on conflict (key) do update set version = excluded.version",
        "delete from kv",
        "begin isolation level serializable; insert into kv (key, value) values ('k', 'z'); commit",
    ] {
        opened.sql(sql);
        let version = kept(&opened, "k");
        assert!(version > before, "{sql}: {version} after {before}");
        before = version;
        let (told, next) = opened.told(cursor, 1).await;
        assert_eq!(told, [(kv, format!("k@{version}"))], "{sql}");
        cursor = Some(next);
    }
    // Another key is the end of one and the beginning of the other.
    opened.sql("update kv set key = 'other' where key = 'k'");
    let (told, next) = opened.told(cursor, 2).await;
    let (gone, made) = (kept(&opened, "k"), opened.version("other").await);
    assert!(gone > before);
    assert_eq!(
        told,
        [(kv, format!("k@{gone}")), (kv, format!("other@{made}"))]
    );
    // All at once: one change, and every row is newer than it was when it is made anew.
    opened
        .apply(vec![opened.put("k", "1"), opened.put("l", "1")])
        .await;
    let versions = [opened.version("k").await, opened.version("l").await];
    opened.sql("truncate kv");
    let (told, next) = opened.told(Some(next), 1).await;
    assert_eq!(told, [(kv, "*".into())]);
    assert!(kept(&opened, "k") > versions[0] && kept(&opened, "l") > versions[1]);
    let truncated = kept(&opened, "k");
    opened.sql("insert into kv (key, value) values ('k', 'x')");
    assert!(opened.version("k").await > truncated);
    let (told, next) = opened.told(Some(next), 1).await;
    assert_eq!(told.len(), 1);
    // Nothing of ours, and nothing more.
    opened
        .apply(vec![opened.put("k", "2"), opened.put("l", "2")])
        .await;
    opened.apply(vec![opened.delete("l")]).await;
    assert!(opened.version("k").await > truncated);
    let outside = opened.outside(Some(next), 10).await;
    assert_eq!((outside.changes.len(), outside.more), (0, false));
    assert_eq!((outside.next, outside.lag), (next, Duration::ZERO));
}

/// What triggers and foreign keys change further is told, also if it was we who began it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_writes_set_off_is_told() {
    let opened = Opened::new().await;
    opened.apply(vec![opened.put("k", "1")]).await;
    opened.sql(
        "alter table other add column of text references kv (key) on delete cascade;
         insert into other (key, value, of) values ('child', 'x', 'k')",
    );
    let (told, next) = opened.told(None, 1).await;
    assert_eq!(told.len(), 1);
    opened.apply(vec![opened.delete("k")]).await;
    let (told, _) = opened.told(Some(next), 1).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, opened.other);
    assert!(told[0].1.starts_with("child@"), "{told:?}");
}

/// A row that others have made and not committed is not found by a delete of ours, and has the older number. Whoever
/// learned of the deletion learns, when both are done, that there is more to know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_that_found_nothing_is_no_last_word() {
    for guard in [Guard::Always, Guard::IfNewer(Version::from_raw(1 << 40))] {
        let opened = Opened::new().await;
        let slow = opened.client().await;
        slow.batch_execute("begin; insert into kv (key, value) values ('k', 'x')")
            .await
            .unwrap();
        let delete = Write {
            guard,
            ..opened.delete("k")
        };
        let outcomes = opened.store.apply(&Batch::new(vec![delete], NOW)).await;
        let Outcome::Applied { version, existed } = outcomes.unwrap()[0] else {
            panic!("not applied");
        };
        assert!(!existed);
        assert_eq!(opened.outside(None, 10).await.changes, []);
        slow.batch_execute("commit").await.unwrap();
        assert!(opened.version("k").await < version.raw());
        let (told, _) = opened.told(None, 2).await;
        let later = format!("k@{}", version.raised_outside().raw());
        assert_eq!(told.last(), Some(&(opened.table, later)), "{told:?}");
        // What comes next is newer than both, whoever numbers it.
        let guard = match guard {
            Guard::Always => guard,
            _ => Guard::IfNewer(Version::from_raw(version.raw() + 2)),
        };
        let next = Write {
            guard,
            ..opened.put("k", "y")
        };
        opened.apply(vec![next]).await;
        assert!(opened.version("k").await > version.raw());
    }
}

/// Numbers are committed out of their order: who is late is told as well, and nothing is told before its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_held_open_is_not_left_out() {
    let opened = Opened::new().await;
    let slow = opened.client().await;
    slow.batch_execute("begin; insert into kv (key, value) values ('slow', 'x')")
        .await
        .unwrap();
    opened.sql("insert into kv (key, value) values ('fast', 'x')");
    let start = opened.horizon().await.now;
    opened
        .wait_past(start.after(Duration::from_millis(50)))
        .await;
    let outside = opened.outside(None, 10).await;
    assert_eq!((outside.changes.len(), outside.more), (0, false));
    assert!(
        outside.lag >= Duration::from_millis(50),
        "{:?}",
        outside.lag
    );
    let cursor = Some(outside.next);
    slow.batch_execute("insert into kv (key, value) values ('slower', 'x'); commit")
        .await
        .unwrap();
    let (told, next) = opened.told(cursor, 3).await;
    let keys: Vec<_> = told
        .iter()
        .map(|(_, told)| told.split_once('@').unwrap().0)
        .collect();
    assert_eq!(keys, ["slow", "slower", "fast"]);
    // One that was undone is no change.
    slow.batch_execute("begin; delete from kv; rollback")
        .await
        .unwrap();
    opened.sql("delete from kv where key = 'fast'");
    let (told, next) = opened.told(Some(next), 1).await;
    assert_eq!(told.len(), 1);
    assert_eq!(opened.outside(Some(next), 10).await.lag, Duration::ZERO);
}

/// The second of two who make the same key does not see the deletion in between when it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_waited_for_a_deletion_is_newer() {
    for level in ["read committed", "repeatable read", "serializable"] {
        let opened = Opened::new().await;
        opened.apply(vec![opened.put("k", "1")]).await;
        // Far from what the sequence gives.
        opened.sql("update kv set version = 1000001");
        let (first, second) = (opened.client().await, opened.client().await);
        first.batch_execute("begin; delete from kv").await.unwrap();
        let insert = format!(
            "begin isolation level {level}; select 1; insert into kv (key, value) values ('k', '2'); commit"
        );
        let waits = tokio::spawn(async move { second.batch_execute(&insert).await });
        let ask = "select count(*) from pg_stat_activity where datname = current_database()
            and wait_event_type = 'Lock'";
        while opened.sql(ask) != "1" {
            tokio::task::yield_now().await;
        }
        first.batch_execute("commit").await.unwrap();
        let deleted: u64 = opened
            .sql("select version from tidegate_tombstone")
            .parse()
            .unwrap();
        let made = waits.await.unwrap();
        // It has its number already, and is not let through with it.
        assert_eq!(made.unwrap_err().code().unwrap().code(), "40001", "{level}");
        opened.sql("insert into kv (key, value) values ('k', '2')");
        assert!(opened.version("k").await > deleted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_changes_are_removed_and_who_missed_them_is_told() {
    let opened = Opened::new().await;
    let sweep = async || {
        let day = Duration::from_secs(24 * 60 * 60);
        opened
            .store
            .sweep(opened.table, NOW, day, 10)
            .await
            .unwrap();
    };
    let rows = || opened.sql("select count(*) from tidegate_outbox");
    let an_hour_on = || {
        opened.sql("update tidegate_outbox_start set bound_at = bound_at - interval '61 minutes'");
    };
    opened.sql("insert into kv (key, value) values ('first', 'x'), ('second', 'x')");
    let (_, early) = opened.told(None, 2).await;
    let behind = OutsideCursor {
        place: early.place - 1,
        ..early
    };
    // However old it is by itself, an hour must pass in which it could be read.
    opened.sql("update tidegate_outbox set at = at - interval '2 days'");
    sweep().await;
    assert_eq!(rows(), "2");
    sweep().await;
    assert_eq!(rows(), "2");
    let slow = opened.client().await;
    slow.batch_execute("begin; insert into kv (key, value) values ('slow', 'x')")
        .await
        .unwrap();
    opened.sql("insert into kv (key, value) values ('third', 'x')");
    an_hour_on();
    sweep().await;
    assert_eq!(rows(), "1", "the two, and not the one that came after");
    assert!(!opened.outside(Some(early), 10).await.missed);
    for missed in [Some(behind), None] {
        let outside = opened.outside(missed, 10).await;
        assert!(outside.missed, "{missed:?}");
        // From where it was read it goes on.
        assert_eq!(outside.changes, []);
    }
    // Nobody could read it yet: it is behind one that is open. So it stays, whatever time it is.
    an_hour_on();
    sweep().await;
    assert_eq!(rows(), "1");
    slow.batch_execute("commit").await.unwrap();
    let (told, _) = opened.told(Some(early), 2).await;
    assert_eq!(told.len(), 2);
    // More than a page goes one page after the other.
    opened.sql("insert into kv (key, value) select n::text, 'x' from generate_series(1, 25) as n");
    sweep().await;
    for _ in 0..500 {
        if rows() == "0" {
            break;
        }
        an_hour_on();
        sweep().await;
    }
    assert_eq!(rows(), "0");
    assert!(opened.outside(Some(early), 10).await.missed);
}

/// A database that was restored, or another server that took over, gives numbers out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_another_history_has_missed_everything() {
    let opened = Opened::new().await;
    opened.sql("insert into kv (key, value) values ('k', 'x')");
    let (_, cursor) = opened.told(None, 1).await;
    for other in [
        OutsideCursor {
            history: cursor.history.wrapping_add(1),
            ..cursor
        },
        OutsideCursor {
            transaction: cursor.transaction + 1_000_000,
            ..cursor
        },
        OutsideCursor {
            transaction: u64::MAX,
            ..cursor
        },
    ] {
        let outside = opened.outside(Some(other), 10).await;
        assert!(outside.missed, "{other:?}");
        // It may read on from there, and misses nothing.
        let (told, _) = opened.told(Some(outside.next), 1).await;
        assert_eq!(told.len(), 1);
    }
}

/// A table that is not open in this store is passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_told_by_the_ids_of_the_reader() {
    let opened = Opened::new().await;
    opened.sql(
        "insert into other (key, value) values ('o', 'x');
         insert into kv (key, value) values ('k', 'x')",
    );
    opened.told(None, 2).await;
    let reader = open(&opened.postgres.url(&opened.database)).await;
    let other = reader.open_table(&watched("other")).await.unwrap();
    assert_eq!(other, TableId(0));
    let outside = reader
        .many_nodes()
        .unwrap()
        .outside_changes(None, 10)
        .await
        .unwrap();
    let told: Vec<_> = outside
        .changes
        .iter()
        .map(|change| (change.table, change.key.clone()))
        .collect();
    assert_eq!(told, [(other, Some("o".into()))]);
    assert!(outside.changes[0].at > StoreTime::default());
    assert_eq!(outside.next, opened.told(None, 2).await.1);
}

/// A table of the user's, with keys of bytes and odd names; the triggers are made by whoever may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_table_of_a_user() {
    let opened = Opened::new().await;
    opened.sql(
        r#"create schema "My Apps"; create table "My Apps"."it's $tidegate$ %s" (
            "the ""Key""" bytea primary key, value jsonb, "Ver sion" bigint not null)"#,
    );
    let spec = TableSpec {
        name: "My Apps.it's $tidegate$ %s".into(),
        columns: Columns {
            key: "the \"Key\"".into(),
            value: "value".into(),
            version: "Ver sion".into(),
            expires_at: None,
            updated_at: None,
        },
        value_type: ValueType::Auto,
        create: false,
        trigger: true,
        outbox: true,
    };
    let table = opened.store.open_table(&spec).await.unwrap();
    // Others have no rights to what the triggers write.
    let user = format!("{}_stranger", opened.database);
    opened.sql(&format!(
        r#"create role {user} login; grant usage on schema "My Apps" to {user};
           grant all on "My Apps"."it's $tidegate$ %s" to {user}"#
    ));
    let name = r#""My Apps"."it's $tidegate$ %s""#;
    for sql in [
        format!(r#"insert into {name} values ('\x00ff', '{{}}', 0)"#),
        format!("update {name} set value = '[]'"),
        format!("delete from {name}"),
        format!("truncate {name}"),
    ] {
        opened.sql(&format!("set role {user}; {sql}"));
    }
    let mut next = None;
    let mut told = Vec::new();
    while told.len() < 4 {
        let outside = opened.outside(next, 10).await;
        next = Some(outside.next);
        told.extend(outside.changes);
    }
    assert!(told.iter().all(|change| change.table == table));
    let key = Some(tidegate_core::Key::from(&b"\x00\xff"[..]));
    assert!(told[..3].iter().all(|change| change.key == key));
    assert!(told[0].version < told[1].version && told[1].version < told[2].version);
    assert_eq!(
        (told[3].key.clone(), told[3].version),
        (None, Version::NONE)
    );
    // Nor can they have the function run on a table of their own, with rights that they have not.
    let stolen = opened.sql(
        "select oid::regprocedure from pg_proc where proname like 'tidegate_outside%' limit 1",
    );
    let may = opened.sql(&format!(
        "select has_function_privilege('{user}', '{stolen}', 'execute')"
    ));
    assert_eq!(may, "f");
    // Opened again it is found as it is; a trigger that is off is put on again.
    opened.sql(&format!(
        "alter table {name} disable trigger tidegate_outside_after"
    ));
    let again = open(&opened.postgres.url(&opened.database)).await;
    again.open_table(&spec).await.unwrap();
    let on =
        "select count(*) from pg_trigger where tgname like 'tidegate_outside%' and tgenabled = 'O'
        and tgrelid not in ('kv'::regclass, 'other'::regclass)";
    assert_eq!(opened.sql(on), "3");
}
