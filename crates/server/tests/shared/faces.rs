//! What a person and a monitor see of the shared cache: EXPLAIN, EVICT, FLUSHALL, INFO, metrics, the start-up lines.

use std::collections::BTreeSet;

use crate::support::{Client, bulk, field, integer, ok};
use crate::world::{World, http, info, wait_until};
use tidegate_resp::Reply;

fn state(client: &mut Client, key: &str) -> String {
    match field(
        &client.ask(&format!("TIDEGATE EXPLAIN {key}")),
        "shared_state",
    ) {
        Reply::Bulk(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Reads the key until all nodes have it: while the first generation begins nothing is filled.
fn wait_until_clean(client: &mut Client, key: &str) {
    wait_until("the key is filled", || {
        client.ask(&format!("GET {key}"));
        state(client, key) == "clean"
    });
}

#[test]
fn explain_tells_the_level_and_where_the_key_stands_for_all_nodes() {
    let world = World::new();
    let nodes = world.start::<2>("", "");
    let [mut one, mut two] = nodes.each_ref().map(|node| node.connect());
    assert_eq!(state(&mut two, "a"), "absent");
    one.expect("SET a 1", ok());
    two.expect("GET a", bulk("1"));
    wait_until_clean(&mut two, "a");
    let told = two.ask("TIDEGATE EXPLAIN a");
    assert_eq!(field(&told, "level"), bulk("linearizable"));
    assert_eq!(
        field(&told, "shared_version"),
        field(&one.ask("TIDEGATE EXPLAIN a"), "shared_version")
    );
}

#[test]
fn evict_and_flushall_empty_the_cache_of_all_nodes_and_never_the_database() {
    let world = World::new();
    let nodes = world.start::<2>("", "");
    let [mut one, mut two] = nodes.each_ref().map(|node| node.connect());
    for command in ["TIDEGATE EVICT a", "FLUSHALL", "FLUSHDB ASYNC"] {
        one.expect("MSET a 1 b 2", ok());
        two.expect("MGET a b", Reply::Array(vec![bulk("1"), bulk("2")]));
        wait_until_clean(&mut two, "a");
        let wanted = if command.starts_with("TIDEGATE") {
            integer(1)
        } else {
            ok()
        };
        one.expect(command, wanted);
        assert_eq!(state(&mut two, "a"), "absent", "{command}");
        two.expect("MGET a b", Reply::Array(vec![bulk("1"), bulk("2")]));
        assert_eq!(world.sql("select count(*) from entries"), "2");
    }
}

#[test]
fn the_figures_tell_what_happened_and_hold_no_keys() {
    let world = World::new();
    let nodes = world.start::<2>("", "");
    let [mut one, mut two] = nodes.each_ref().map(|node| node.connect());
    one.expect("SET a:secret-key 1", ok());
    wait_until_clean(&mut two, "a:secret-key");
    for _ in 0..5 {
        two.expect("GET a:secret-key", bulk("1"));
    }
    one.ask("GET a:never-there");
    let [first, second] = &nodes;
    assert!(first.figure("marks") >= 1);
    assert!(second.figure("shared_hits") >= 4);
    assert_eq!(first.figure("closed_shards"), 0);
    let text = info(&mut one, "shared");
    assert!(text.starts_with("# Shared\r\n"), "{text}");
    let (status, page) = http(first.admin_port(), "/metrics");
    assert_eq!(status, 200);
    let names: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("tidegate_shared_"))
        .collect();
    assert!(names.len() >= 12, "{names:?}");
    assert!(!page.contains("secret-key") && !text.contains("secret-key"));
}

#[test]
fn the_start_up_lines_name_the_shared_cache_and_the_levels() {
    let world = World::new();
    let class = "[[class]]\nname = 'view'\nkeys = 'view:*'\nlevel = 'bounded(200ms)'\n";
    let [node] = world.start::<1>("prefix = 'shop'", class);
    let words = node.server.words();
    for expected in [
        format!("shared   {}, prefix shop, 256 shards", world.redis.url()),
        "bounded(200ms)".to_owned(),
        "linearizable".to_owned(),
    ] {
        assert!(words.contains(&expected), "{expected}\n{words}");
    }
    node.end();
}

/// What a node leaves behind in the Redis when it has ended in order: no mark, and nothing without an end.
#[test]
fn a_node_that_ends_in_order_leaves_no_mark() {
    let world = World::new();
    let nodes = world.start::<2>("", "");
    let mut clients = nodes.each_ref().map(|node| node.connect());
    for key in 0..100 {
        clients[key % 2].expect(&format!("SET k:{key} {key}"), ok());
    }
    let [one, two] = nodes;
    one.end();
    let mut client = two.connect();
    for key in 0..100 {
        client.expect(&format!("GET k:{key}"), bulk(&key.to_string()));
        wait_until_clean(&mut client, &format!("k:{key}"));
    }
    let live = world.sql("select count(*) from tidegate_node where seen_at is not null");
    assert_eq!(live, "1");
    two.end();
}

#[test]
fn a_client_of_another_make_sees_one_shop_over_two_nodes() {
    let world = World::new();
    let classes = "
        [[class]]
        name = 'order'
        keys = 'order:*'
        [[class]]
        name = 'view'
        keys = 'view:*'
        strategy = 'write-around'
        ttl = '1m'
    ";
    let nodes = world.start::<2>("", classes);
    let ports = nodes.each_ref().map(|node| node.port().to_string());
    let said = crate::interpreter::script("two_nodes.py", &ports);
    assert_eq!(said.last().map(String::as_str), Some("done"), "{said:?}");
}
