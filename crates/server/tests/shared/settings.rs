//! Nodes that see a class differently would each be right and together wrong: the second one is not let in.

use crate::support::ok;
use crate::world::{Node, World};

const PLAIN: &str = "
    [[class]]
    name = 'order'
    keys = 'order:*'
    ttl = '10m'
";

const OTHERS: [(&str, &str); 2] = [
    (
        "strategy",
        "
    [[class]]
    name = 'order'
    keys = 'order:*'
    ttl = '10m'
    strategy = 'write-around'
",
    ),
    (
        "keys",
        "
    [[class]]
    name = 'order'
    keys = 'orders:*'
    ttl = '10m'
",
    ),
];

#[test]
fn a_node_with_other_settings_is_refused_by_class_and_setting_until_the_first_has_left() {
    let world = World::new();
    let [first] = world.start::<1>("", PLAIN);
    first.connect().expect("SET order:1 paid", ok());
    for (setting, other) in OTHERS {
        let config = world.config("", other);
        let Err(words) = Node::try_start(&config) else {
            panic!("a node with another {setting} was let in");
        };
        assert!(
            words.contains("'order'") && words.contains(setting),
            "{words}"
        );
    }
    // One that agrees is welcome.
    let [twin] = world.start::<1>("", PLAIN);
    twin.end();
    // The first one leaves in order: it counts no more from that moment on.
    first.end();
    let [other] = world.start::<1>("", OTHERS[0].1);
    other.end();
}

#[test]
fn a_node_that_was_killed_counts_for_half_a_minute_and_no_longer() {
    let world = World::new();
    let [first] = world.start::<1>("", PLAIN);
    first.server.kill9();
    let config = world.config("", OTHERS[0].1);
    let Err(words) = Node::try_start(&config) else {
        panic!("the dead node was forgotten at once");
    };
    assert!(words.contains("'order'"), "{words}");
    // Half a minute passes for the database.
    world.sql("update tidegate_node set seen_at = seen_at - interval '31 seconds'");
    Node::start(&config).end();
}
