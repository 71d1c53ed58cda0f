//! A cold key that very many ask for at the same time, through all nodes.

use std::time::Duration;

use tidegate_testkit::servers::{Postgres, Redis};

use crate::support::{Client, Folder, bulk, ok};
use crate::world::Node;

const READERS: usize = 1000;

/// The store is held until all of them wait, so that they are at the same time indeed; and no lease runs out meanwhile.
#[test]
fn a_thousand_readers_of_a_cold_key_over_three_nodes_are_one_load() {
    let redis = Redis::start();
    let mut postgres = Postgres::start();
    let database = postgres.fresh_database();
    let config = format!(
        "[store]\nurl = '{}'\n[shared]\nurl = '{}'\nlease = '20s'\n\
         [[class]]\nname = 'default'\nload_timeout = '20s'\n",
        postgres.url(&database),
        redis.url()
    );
    let nodes: [_; 3] = std::array::from_fn(|_| {
        let folder = Folder::new();
        let server = folder.serve_config(&format!("[server]\nadmin = '127.0.0.1:0'\n{config}"));
        Node { server, folder }
    });
    for round in 0..3 {
        let key = format!("cold:{round}");
        nodes[0].connect().expect(&format!("SET {key} value"), ok());
        let changes = || -> u64 {
            let changes = nodes.iter().map(|node| node.figure("generation_changes"));
            changes.sum()
        };
        let before = changes();
        // Nobody has it any more.
        redis.flush_all();
        crate::world::wait_until("the shards are open again", || {
            changes() > before && nodes.iter().all(|node| node.figure("closed_shards") == 0)
        });
        let before: u64 = nodes.iter().map(|node| node.loads("default")).sum();
        let mut readers: Vec<Client> = (0..READERS)
            .map(|reader| nodes[reader % nodes.len()].connect())
            .collect();
        postgres.pause();
        for reader in &mut readers {
            reader.send(&[format!("GET {key}")]);
        }
        std::thread::sleep(Duration::from_millis(500));
        postgres.resume();
        for reader in &mut readers {
            assert_eq!(reader.read(), bulk("value"));
        }
        let loads = nodes.iter().map(|node| node.loads("default")).sum::<u64>() - before;
        assert_eq!(loads, 1, "round {round}");
    }
}
