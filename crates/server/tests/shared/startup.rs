//! A Redis that is set up wrong, or not there yet.

use std::time::Duration;

use tidegate_testkit::servers::{Redis, RedisOptions};

use crate::support::ok;
use crate::world::{Node, World};

/// What a node says that does not start over this Redis with these classes.
fn refused(redis: Redis, classes: &str) -> String {
    let world = World::over(redis);
    match Node::try_start(&world.config("", classes)) {
        Ok(_) => panic!("it started"),
        Err(words) => words,
    }
}

#[test]
fn a_redis_that_evicts_what_must_stay_is_refused_with_the_command_that_helps() {
    let redis = Redis::start_as(RedisOptions {
        memory_max: Some((64 << 20, "allkeys-lru".to_owned())),
        ..RedisOptions::default()
    });
    let words = refused(redis, "");
    for word in [
        "tidegate cannot start",
        "allkeys-lru",
        "CONFIG SET maxmemory-policy volatile-lru",
    ] {
        assert!(words.contains(word), "no '{word}' in {words}");
    }
}

#[test]
fn a_redis_that_evicts_only_what_may_go_is_taken() {
    for policy in ["volatile-lru", "volatile-ttl", "noeviction"] {
        let world = World::over(Redis::start_as(RedisOptions {
            memory_max: Some((64 << 20, policy.to_owned())),
            ..RedisOptions::default()
        }));
        let [node] = world.start::<1>("", "");
        node.connect().expect("SET a 1", ok());
        node.end();
    }
}

#[test]
fn a_redis_that_refuses_the_password_is_named_without_it() {
    let redis = Redis::start_with(&["--requirepass", "right"]);
    let world = World::over(redis);
    let port = world.redis.port();
    let wrong = world.config("", "").replace("redis://", "redis://:sesame@");
    let Err(words) = Node::try_start(&wrong) else {
        panic!("it started");
    };
    assert!(words.contains(&format!("127.0.0.1:{port}")), "{words}");
    assert!(!words.contains("sesame"), "{words}");
    let right = world.config("password_env = 'TIDEGATE_TEST_PASSWORD'", "");
    let folder = crate::support::Folder::new();
    let path = folder.write("tidegate.toml", &right);
    let server = folder
        .try_serve(
            &["--config", path.to_str().unwrap()],
            &[("TIDEGATE_TEST_PASSWORD", "right")],
        )
        .unwrap();
    server.connect().expect("SET a 1", ok());
    assert!(!server.words().contains("right"), "{}", server.words());
    assert_eq!(server.terminate(), 0);
}

#[test]
fn a_redis_that_comes_a_little_later_is_waited_for() {
    let mut world = World::new();
    world.redis.stop();
    let config = world.config("", "");
    let starting = std::thread::spawn(move || Node::try_start(&config));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!starting.is_finished(), "it did not wait");
    world.redis.restart();
    let node = starting
        .join()
        .unwrap()
        .unwrap_or_else(|words| panic!("{words}"));
    let told = node.folder.stderr();
    assert!(told.contains("waiting for the shared cache"), "{told}");
    node.connect().expect("SET a 1", ok());
    node.end();
}

#[test]
fn a_redis_that_never_comes_is_named_and_not_waited_for_for_ever() {
    let mut world = World::new();
    world.redis.stop();
    let start = std::time::Instant::now();
    let Err(words) = Node::try_start(&world.config("", "")) else {
        panic!("it started");
    };
    assert!(start.elapsed() < Duration::from_secs(25));
    let place = format!("shared cache redis://127.0.0.1:{}", world.redis.port());
    assert!(
        words.contains("tidegate cannot start") && words.contains(&place),
        "{words}"
    );
}

#[test]
fn a_store_for_one_node_is_refused_before_anything() {
    let folder = crate::support::Folder::new();
    let text = "[shared]\nurl = 'redis://127.0.0.1:1'\n";
    let path = folder.write("tidegate.toml", text);
    let ended = crate::support::run(&["check-config", path.to_str().unwrap()]);
    assert_eq!(ended.code, 3);
    assert!(
        ended.stderr.contains(":1: shared: contradicts store.url"),
        "{ended:?}"
    );
}
