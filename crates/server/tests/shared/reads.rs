//! What is written through one node is read through every other at once.

use crate::support::{Client, bulk, integer, ok};
use crate::world::World;
use tidegate_resp::Reply;

const KEYS: usize = 24;
const ROUNDS: usize = 12;

const CLASSES: &str = "
    [[class]]
    name = 'through'
    keys = 'through:*'
    [[class]]
    name = 'around'
    keys = 'around:*'
    strategy = 'write-around'
    ttl = '10m'
";

/// Every pair of nodes, each key read everywhere before, so that everybody has something to be wrong with.
#[test]
fn a_write_through_one_node_is_read_through_the_others_at_once() {
    let world = World::new();
    let nodes = world.start::<3>("", CLASSES);
    let mut clients = nodes.each_ref().map(|node| node.connect());
    let mut reads = 0;
    for round in 0..ROUNDS {
        for writer in 0..clients.len() {
            for class in ["through", "around"] {
                for key in 0..KEYS {
                    let name = format!("{class}:{key}");
                    let value = format!("{round}-{writer}-{key}");
                    clients[writer].expect(&format!("SET {name} {value}"), ok());
                    for reader in &mut clients {
                        reader.expect(&format!("GET {name}"), bulk(&value));
                        reads += 1;
                    }
                }
            }
        }
    }
    assert_eq!(reads, ROUNDS * 3 * 3 * 2 * KEYS);
    // Most of it came out of the shared cache: else this would say nothing.
    let hits: u64 = nodes.iter().map(|node| node.figure("shared_hits")).sum();
    assert!(hits > reads as u64 / 4, "{hits} of {reads}");
    for node in nodes {
        node.end();
    }
}

/// All keys of all nodes in one go, and all answers only then: batches of marks, of commits and of releases.
#[test]
fn pipelines_of_writes_are_read_through_the_others_at_once() {
    let world = World::new();
    let nodes = world.start::<3>("", CLASSES);
    let mut clients = nodes.each_ref().map(|node| node.connect());
    for round in 0..ROUNDS {
        let writer = round % clients.len();
        let value = |key: usize| format!("{round}-{key}");
        let lines: Vec<String> = (0..200)
            .map(|key| format!("SET through:{key} {}", value(key)))
            .collect();
        clients[writer].send(&lines);
        for _ in &lines {
            assert_eq!(clients[writer].read(), ok());
        }
        let names: Vec<String> = (0..200).map(|key| format!("through:{key}")).collect();
        let wanted = Reply::Array((0..200).map(|key| bulk(&value(key))).collect());
        for reader in &mut clients {
            reader.expect(&format!("MGET {}", names.join(" ")), wanted.clone());
        }
    }
}

/// Commands that read before they write see what the other node wrote.
#[test]
fn updates_over_several_nodes_build_on_each_other() {
    let world = World::new();
    let nodes = world.start::<2>("", CLASSES);
    let [mut one, mut two] = nodes.each_ref().map(|node| node.connect());
    for count in 0..50 {
        one.expect("INCR through:count", integer(2 * count + 1));
        two.expect("INCR through:count", integer(2 * count + 2));
    }
    one.expect("SET through:lock mine NX", ok());
    two.expect("SET through:lock theirs NX", Reply::Null);
    two.expect("DEL through:lock", integer(1));
    two.expect("SET through:lock theirs NX", ok());
    one.expect("GET through:lock", bulk("theirs"));
    one.expect("APPEND through:text ab", integer(2));
    two.expect("APPEND through:text cd", integer(4));
    one.expect("GET through:text", bulk("abcd"));
    two.expect("SET through:short v PX 60000", ok());
    let Reply::Integer(left) = one.ask("PTTL through:short") else {
        panic!("no time to live");
    };
    assert!((1..=60_000).contains(&left), "{left}");
    one.expect("PERSIST through:short", integer(1));
    two.expect("TTL through:short", integer(-1));
}

/// Two nodes count at the same time: no addition is lost, whoever reads in between.
#[test]
fn additions_of_several_nodes_at_the_same_time_are_all_there() {
    let world = World::new();
    let nodes = world.start::<2>("", CLASSES);
    let count = |port: u16| {
        move || {
            let mut client = Client::connect(port);
            for _ in 0..100 {
                let reply = client.ask("INCR through:count");
                assert!(matches!(reply, Reply::Integer(_)), "{reply:?}");
            }
        }
    };
    let ports = nodes.each_ref().map(|node| node.port());
    let counters: Vec<_> = ports
        .iter()
        .chain(&ports)
        .map(|port| std::thread::spawn(count(*port)))
        .collect();
    for counter in counters {
        counter.join().unwrap();
    }
    for node in &nodes {
        node.connect().expect("GET through:count", bulk("400"));
    }
}
