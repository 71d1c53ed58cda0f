//! A Redis that forgets everything, or is gone, while writers and readers go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tidegate_testkit::servers::RedisAppend;
use tidegate_testkit::servers::{Redis, RedisOptions};

use crate::support::{Client, error_text, ok};
use crate::world::{Node, World, read_number, wait_until};

const KEYS: usize = 6;

/// The only writer of a key, over one node after the other, beside readers through all of them.
#[derive(Default)]
struct Key {
    /// The newest write that was acknowledged, and the newest that was sent.
    acknowledged: AtomicU64,
    sent: AtomicU64,
}

/// What the threads have in common.
#[derive(Default)]
struct Told {
    keys: [Key; KEYS],
    stop: AtomicBool,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    reads: AtomicU64,
}

fn is_temporary(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default();
    ["UNAVAILABLE", "UNKNOWN", "OVERLOADED"].contains(&word)
}

fn write(ports: [u16; 3], key: usize, told: &Told) {
    let mut clients = ports.map(Client::connect);
    let of = &told.keys[key];
    for number in 1.. {
        if told.stop.load(Ordering::SeqCst) {
            return;
        }
        of.sent.store(number, Ordering::SeqCst);
        let client = &mut clients[usize::try_from(number).unwrap() % 3];
        match client.ask(&format!("SET loss:{key} {number}")) {
            reply if reply == ok() => {
                of.acknowledged.store(number, Ordering::SeqCst);
                told.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            reply => {
                let text = error_text(&reply);
                assert!(is_temporary(&text), "{text}");
                told.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// No read is older than what was acknowledged before it was sent, and none goes back.
fn read(port: u16, told: &Told) {
    let mut client = Client::connect(port);
    let mut last = [0; KEYS];
    while !told.stop.load(Ordering::SeqCst) {
        for (key, last) in last.iter_mut().enumerate() {
            let of = &told.keys[key];
            let floor = of.acknowledged.load(Ordering::SeqCst).max(*last);
            match read_number(&mut client, &format!("loss:{key}")) {
                Ok(number) => {
                    let sent = of.sent.load(Ordering::SeqCst);
                    assert!(
                        (floor..=sent).contains(&number),
                        "key {key}: {floor} {number} {sent}"
                    );
                    *last = number;
                    told.reads.fetch_add(1, Ordering::SeqCst);
                }
                Err(text) => assert!(is_temporary(&text), "{text}"),
            }
        }
    }
}

/// Lets writers and readers go on while something is done to the Redis. Afterwards every node reads what the last
/// writes left, and writes go through again.
fn under_load(world: &mut World, mut harm: impl FnMut(&mut Redis)) -> (u64, u64, u64) {
    // Short, so that the time in which nobody fills the cache again is short.
    let nodes: [Node; 3] = world.start("mark_timeout = '300ms'\nresponse_timeout = '200ms'", "");
    let ports = nodes.each_ref().map(|node| node.port());
    let told = Arc::new(Told::default());
    let mut threads = Vec::new();
    for key in 0..KEYS {
        let told = Arc::clone(&told);
        threads.push(thread::spawn(move || write(ports, key, &told)));
    }
    for port in ports {
        let told = Arc::clone(&told);
        threads.push(thread::spawn(move || read(port, &told)));
    }
    thread::sleep(Duration::from_millis(300));
    harm(&mut world.redis);
    thread::sleep(Duration::from_millis(700));
    told.stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
    wait_until("every node is ready again", || {
        nodes.iter().all(|node| node.ready().0 == 200)
    });
    let mut clients = nodes.each_ref().map(|node| node.connect());
    for (key, of) in told.keys.iter().enumerate() {
        let name = format!("loss:{key}");
        let numbers = clients
            .each_mut()
            .map(|client| read_number(client, &name).unwrap());
        let row = world.sql(&format!("select value from entries where key = '{name}'"));
        assert!(
            numbers
                .iter()
                .all(|number| number.to_string() == row.trim()),
            "{name}: {numbers:?}, the row has {row}"
        );
        assert!(numbers[0] >= of.acknowledged.load(Ordering::SeqCst));
        wait_until("writes go through again", || {
            clients[key % 3].ask(&format!("SET {name} after")) == ok()
        });
        for client in &mut clients {
            client.expect(&format!("GET {name}"), crate::support::bulk("after"));
        }
    }
    // The nodes know that the cache lost something: its keys got new generations.
    let changes: u64 = nodes
        .iter()
        .map(|node| node.figure("generation_changes"))
        .sum();
    assert!(changes > 0, "nobody noticed");
    for node in nodes {
        node.end();
    }
    let figure = |of: &AtomicU64| of.load(Ordering::SeqCst);
    (
        figure(&told.acknowledged),
        figure(&told.failed),
        figure(&told.reads),
    )
}

#[test]
fn a_cache_that_is_emptied_behind_their_backs_again_and_again_shows_nothing_stale() {
    let mut world = World::new();
    let (acknowledged, failed, reads) = under_load(&mut world, |redis| {
        for _ in 0..6 {
            redis.flush_all();
            thread::sleep(Duration::from_millis(350));
        }
    });
    println!("{acknowledged} writes acknowledged, {failed} failed, {reads} reads");
    assert!(acknowledged > 100 && reads > 100);
}

#[test]
fn a_cache_that_is_killed_and_comes_back_empty_shows_nothing_stale() {
    let mut world = World::new();
    let (acknowledged, failed, reads) = under_load(&mut world, |redis| {
        for _ in 0..3 {
            redis.kill9();
            thread::sleep(Duration::from_millis(400));
            redis.restart_empty();
            thread::sleep(Duration::from_millis(700));
        }
    });
    println!("{acknowledged} writes acknowledged, {failed} failed, {reads} reads");
    // Readers go on while it is away; writers are told.
    assert!(acknowledged > 50 && failed > 0 && reads > 100);
}

#[test]
fn a_cache_that_comes_back_with_what_it_had_a_second_ago_shows_nothing_stale() {
    let mut world = World::over(Redis::start_as(RedisOptions {
        append: RedisAppend::EverySecond,
        ..RedisOptions::default()
    }));
    let (acknowledged, failed, reads) = under_load(&mut world, |redis| {
        for _ in 0..3 {
            redis.kill9();
            redis.restart();
            thread::sleep(Duration::from_millis(700));
        }
    });
    println!("{acknowledged} writes acknowledged, {failed} failed, {reads} reads");
    assert!(acknowledged > 50 && reads > 100);
}

#[test]
fn while_the_cache_is_away_reads_come_from_the_store_and_readyz_says_so() {
    let mut world = World::new();
    let [node] = world.start::<1>("", "");
    let mut client = node.connect();
    client.expect("SET a 1", ok());
    assert_eq!(node.ready().0, 200);
    world.redis.stop();
    assert_eq!(read_number(&mut client, "a"), Ok(1));
    let refused = error_text(&client.ask("SET a 2"));
    assert!(
        refused.starts_with("UNAVAILABLE") && refused.contains("shared cache"),
        "{refused}"
    );
    let (status, words) = node.ready();
    assert_eq!(status, 503);
    assert!(words.contains("shared cache"), "{words}");
    // What was refused was not written.
    assert_eq!(read_number(&mut client, "a"), Ok(1));
    world.redis.restart();
    wait_until("it is ready again", || node.ready().0 == 200);
    client.expect("SET a 3", ok());
    assert_eq!(read_number(&mut client, "a"), Ok(3));
    node.end();
}
