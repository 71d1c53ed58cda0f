//! One client of the load: puts, deletes, additions, and values that the store refuses, one after the other.

use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_resp::Reply;

use super::ledger::{BAD, Ledger};
use super::support::{Client, field, ok};

/// Few keys, so that writes coalesce and entries are dirty again while they are flushed.
const KEYS: usize = 5;

/// Writes until the server is gone; what was learned.
pub(crate) fn write(
    port: u16,
    writer: usize,
    round: u64,
    mut learned: Ledger,
    stop: &AtomicBool,
) -> Ledger {
    learned.begin(writer);
    let Ok(mut client) = Client::try_connect(port) else {
        return learned;
    };
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed)
        && one(&mut client, writer, round, turn, &mut learned).is_some()
    {
        turn += 1;
    }
    learned
}

/// One write; nothing if its answer did not come.
fn one(
    client: &mut Client,
    writer: usize,
    round: u64,
    turn: usize,
    learned: &mut Ledger,
) -> Option<()> {
    let slot = turn / 4 % KEYS;
    match turn % 4 {
        0 => put(
            client,
            &format!("session:{writer}:{slot}"),
            Some(format!("{round}.{turn}")),
            learned,
        ),
        1 => {
            let (own, all) = (format!("count:{writer}"), "count:all".to_owned());
            let key = if slot.is_multiple_of(2) { own } else { all };
            learned.ask_to_add(&key);
            match ask(client, &format!("INCR {key}"))? {
                Reply::Integer(_) => learned.added(&key),
                other => panic!("INCR {key}: {other:?}"),
            }
            Some(())
        }
        2 if turn % 12 == 2 => put(client, &format!("session:{writer}:{slot}"), None, learned),
        2 => put(
            client,
            &format!("session:{writer}:{slot}"),
            Some(format!("{round}.{turn}")),
            learned,
        ),
        _ if turn % 20 == 3 => discard(
            client,
            &format!("strict:{writer}:discarded"),
            round,
            turn,
            learned,
        ),
        _ => {
            let key = format!("strict:{writer}:{}", slot % 2);
            let word = if (turn / 4).is_multiple_of(3) {
                BAD
            } else {
                "good"
            };
            put(client, &key, Some(format!("{word}{round}.{turn}")), learned)
        }
    }
}

fn put(client: &mut Client, key: &str, value: Option<String>, learned: &mut Ledger) -> Option<()> {
    learned.ask(key, value.clone());
    let reply = match &value {
        Some(value) => ask(client, &format!("SET {key} {value}"))?,
        None => ask(client, &format!("DEL {key}"))?,
    };
    match reply {
        Reply::Integer(_) if value.is_none() => {}
        reply => assert_eq!(reply, ok(), "{key}"),
    }
    learned.answered(key);
    Some(())
}

/// Discards the dead letter of a key of which the store never had a row, or makes one if there is none.
fn discard(
    client: &mut Client,
    key: &str,
    round: u64,
    turn: usize,
    learned: &mut Ledger,
) -> Option<()> {
    let letter = ask(client, &format!("TIDEGATE DEADLETTERS SHOW {key}"))?;
    if letter == Reply::Null {
        return put(client, key, Some(format!("{BAD}{round}.{turn}")), learned);
    }
    let Reply::Bulk(version) = field(&letter, "version") else {
        panic!("{letter:?}");
    };
    let version = String::from_utf8(version.to_vec()).unwrap();
    learned.ask(key, None);
    let line = format!("TIDEGATE DEADLETTERS DISCARD {key} {version}");
    assert_eq!(ask(client, &line)?, ok(), "{key}");
    learned.answered(key);
    Some(())
}

/// Nothing if the server went away.
fn ask(client: &mut Client, line: &str) -> Option<Reply> {
    client.try_ask(line).ok().flatten()
}
