//! Versions of a key rise in the order of commits, whoever writes: several stores of different generations, and
//! others in plain SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_core::port::{Batch, Guard, Outcome, Store, StoreError, Write};
use tidegate_core::{Change, Version};
use tokio::task::JoinSet;

use crate::NOW;
use crate::opened::{Opened, open, watched};

const KEYS: [&str; 3] = ["a", "b", "c"];
const STORES: u64 = 4;
const BATCHES: u64 = 120;

/// Notes every version that a key gets, of its row or remembered of its deletion, in the order of the locks of the
/// key, which is the order of commits.
const HISTORY: &str =
    "create table history (id bigserial, key text, version bigint, what text, own boolean);
    create function note() returns trigger language plpgsql as $$ begin
        insert into public.history (key, version, what, own) values (
            case when tg_table_name = 'kv' then to_jsonb(new) ->> 'key'
                else convert_from(decode(substr(to_jsonb(new) ->> 'key', 3), 'hex'), 'UTF8') end,
            new.version, tg_table_name,
            coalesce(current_setting('tidegate.own', true), '') = 'on'
        );
        return null;
    end $$;
    create trigger zz_note after insert or update on kv for each row execute function note();
    create trigger zz_note after insert or update on tidegate_tombstone
    for each row when (new.version > 0) execute function note()";

/// A small generator, so that a run can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_four_stores() {
    check(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_four_stores_and_of_others() {
    check(2).await;
}

async fn check(strangers: u64) {
    let opened = Opened::new().await;
    opened.sql(HISTORY);
    let mut tasks = JoinSet::new();
    for number in 0..STORES {
        let store = open(&opened.postgres.url(&opened.database)).await;
        let table = store.open_table(&watched("kv")).await.unwrap();
        let generation = store.open_generation(0).await.unwrap();
        tasks.spawn(async move {
            let mut dice = Dice(0x9e37_79b9 + number);
            let mut taken = Vec::new();
            for step in 0..BATCHES {
                if step == BATCHES / 2 && number == 0 {
                    // A node that is started anew in the middle.
                    store.open_generation(0).await.unwrap();
                }
                let keys: BTreeSet<_> = (0..=dice.roll(2)).map(|_| dice.pick(&KEYS)).collect();
                let writes = keys.into_iter().map(|key| {
                    let change = match dice.roll(3) {
                        0 => Change::Delete,
                        _ => Change::Put {
                            value: format!("{number}.{step}").into(),
                            expires_at: None,
                        },
                    };
                    let guard = match dice.roll(6) {
                        0 => Guard::IfNewer(Version::compose(generation, (1 << 30) + step * 2)),
                        _ => Guard::Always,
                    };
                    Write {
                        table,
                        key: key.into(),
                        change,
                        guard,
                    }
                });
                let batch = Batch::new(writes.collect(), NOW);
                let outcomes = loop {
                    match store.apply(&batch).await {
                        Ok(outcomes) => break outcomes,
                        Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
                        Err(other) => panic!("{other}"),
                    }
                };
                for (write, outcome) in batch.writes.iter().zip(outcomes) {
                    if let Outcome::Applied { version, existed } = outcome {
                        let of_nothing = !existed && write.change == Change::Delete;
                        taken.push((write.key.clone(), version.raw(), of_nothing));
                    }
                }
            }
            taken
        });
    }
    let mut others = JoinSet::new();
    for number in 0..strangers {
        let client = opened.client().await;
        others.spawn(async move {
            let mut dice = Dice(77 + number);
            for step in 0..BATCHES {
                let key = dice.pick(&KEYS);
                let mut sql = match dice.roll(6) {
                    0 => format!("delete from kv where key = '{key}'"),
                    1 => format!("insert into kv (key, value) values ('{key}', 'x') on conflict do nothing"),
                    2 => format!(
                        "insert into kv (key, value, version) values ('{key}', 'x', 3)
                         on conflict (key) do update set value = excluded.value, version = excluded.version"
                    ),
                    3 => "update kv set key = 'd' where key = 'a'; delete from kv where key = 'd'".into(),
                    _ => format!("update kv set value = 'y' where key = '{key}'"),
                };
                if step % 2 == number % 2 {
                    let level = ["repeatable read", "serializable"][usize::from(step % 3 == 0)];
                    sql = format!("begin isolation level {level}; {sql}; commit");
                }
                if let Err(e) = client.batch_execute(&sql).await {
                    // In each other's way, as it may be.
                    let code = e.code().unwrap_or_else(|| panic!("{e}")).code();
                    assert!(["40001", "40P01", "23505"].contains(&code), "{e:?}");
                    client.batch_execute("rollback").await.unwrap();
                }
            }
        });
    }
    let taken = tasks.join_all().await.concat();
    others.join_all().await;

    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let history = opened.sql("select key, version, what, own from history order by id");
    let rows: Vec<Vec<&str>> = history
        .lines()
        .map(|row| row.split('|').collect())
        .collect();
    let of_nothing = |row: &[&str]| {
        row[3] == "t"
            && taken.iter().any(|(key, version, of_nothing)| {
                *of_nothing && key.as_bytes() == row[0].as_bytes() && version.to_string() == row[1]
            })
    };
    for (at, row) in rows.iter().enumerate() {
        // A delete that found nothing may be overtaken by a row that others were about to make.
        if strangers > 0 && of_nothing(row) {
            continue;
        }
        let version: i64 = row[1].parse().unwrap();
        let before = last.insert(row[0].to_owned(), version).unwrap_or(0);
        assert!(
            version > before,
            "{row:?} after {before}: {:?}",
            &rows[at.saturating_sub(8)..=at]
        );
    }
    assert!(
        last.len() >= KEYS.len() && rows.len() > 500,
        "{}",
        rows.len()
    );
    // What was answered is what was kept, and nobody else got the same.
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for (key, version, of_nothing) in taken {
        let key = String::from_utf8(key.as_bytes().to_vec()).unwrap();
        assert!(seen.insert((key.clone(), version)), "{key} {version} twice");
        if of_nothing {
            wanted.push(format!("{key}@{}", (version + 1) | 1));
            continue;
        }
        let version = version.to_string();
        let kept = |row: &&Vec<&str>| row[0] == key && row[1] == version && row[3] == "t";
        assert_eq!(rows.iter().filter(kept).count(), 1, "{key} {version}");
    }
    assert!(!wanted.is_empty());
    // All that others did is told, and nothing of ours but the deletes of nothing.
    let outside = rows.iter().filter(|row| row[3] == "f");
    let outside: Vec<_> = outside
        .map(|row| format!("{}@{}", row[0], row[1]))
        .collect();
    assert_eq!(outside.len() > 20, strangers > 0, "{}", outside.len());
    wanted.extend(outside);
    let (told, _) = opened.told(None, wanted.len()).await;
    let mut told: Vec<_> = told.into_iter().map(|(_, change)| change).collect();
    wanted.sort();
    told.sort();
    assert_eq!(told, wanted);
}

/// A sequence with a cache gives numbers out of order, and is refused with what to do about it.
#[tokio::test]
async fn a_sequence_with_a_cache_is_refused() {
    let opened = Opened::new().await;
    opened.sql("alter sequence tidegate_version cache 20");
    let url = opened.postgres.url(&opened.database);
    let config = tidegate::postgres::PostgresConfig::from_url(&url).unwrap();
    let refused = tidegate::postgres::PostgresStore::open(config).await;
    let Err(StoreError::Configuration { message }) = refused.map(|_| ()) else {
        panic!("taken");
    };
    let (_, remedy) = message.split_once("run `").unwrap();
    opened.sql(remedy.trim_end_matches('`'));
    let again: Arc<_> = open(&url).await;
    again.ping().await.unwrap();
}
