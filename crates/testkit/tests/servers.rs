//! The test servers start, survive what is done to them, and end with the process that started them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_testkit::servers::{
    Postgres, Redis, RedisAnswer, RedisAppend, RedisCluster, RedisClusterOptions, RedisOptions,
};

#[test]
fn postgres_keeps_its_data_through_kills() {
    let mut postgres = Postgres::start();
    let database = postgres.fresh_database();
    postgres.sql(
        &database,
        "create table t (n int); insert into t values (7)",
    );
    postgres.kill9();
    assert_eq!(postgres.pid(), None);
    assert!(TcpStream::connect(("127.0.0.1", postgres.port())).is_err());
    postgres.restart();
    assert_eq!(postgres.sql(&database, "select n, 'x' from t"), "7|x");
    let folder = postgres.socket_folder().to_owned();
    drop(postgres);
    assert!(!folder.exists());
}

#[test]
fn postgres_that_is_paused_answers_nothing_and_goes_on_later() {
    let mut postgres = Postgres::start();
    postgres.sql("postgres", "create table t (n int)");
    postgres.pause();
    // The question whether it speaks TLS, which is answered by one letter.
    let mut stream = TcpStream::connect(("127.0.0.1", postgres.port())).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    let patience = Some(Duration::from_millis(300));
    stream.set_read_timeout(patience).unwrap();
    assert!(stream.read_exact(&mut answer).is_err());
    postgres.resume();
    stream.set_read_timeout(None).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"N");
    postgres.sql("postgres", "insert into t values (1)");
    // One that is paused can be ended and started all the same.
    postgres.pause();
    postgres.kill9();
    postgres.restart();
    assert_eq!(postgres.sql("postgres", "select n from t"), "1");
}

fn text(answer: &str) -> RedisAnswer {
    RedisAnswer::Text(answer.as_bytes().to_vec())
}

#[test]
fn redis_keeps_what_it_is_told_to_keep() {
    let mut redis = Redis::start_as(RedisOptions {
        append: RedisAppend::Always,
        ..RedisOptions::default()
    });
    redis.tell(&["SET", "k", "v"]);
    redis.kill9();
    redis.restart();
    assert_eq!(redis.tell(&["GET", "k"]), text("v"));
    redis.restart_empty();
    assert_eq!(redis.tell(&["GET", "k"]), RedisAnswer::Nothing);
    redis.tell(&["SET", "k", "w"]);
    redis.flush_all();
    assert_eq!(redis.tell(&["GET", "k"]), RedisAnswer::Nothing);
    assert!(matches!(redis.ask(&["GET"]), Ok(RedisAnswer::Error(_))));
}

#[test]
fn redis_evicts_as_it_is_told() {
    let redis = Redis::start_as(RedisOptions {
        memory_max: Some((4 << 20, "noeviction".into())),
        ..RedisOptions::default()
    });
    let value = "x".repeat(100_000);
    let refused = (0..100).find_map(|n| match redis.ask(&["SET", &n.to_string(), &value]) {
        Ok(RedisAnswer::Error(text)) => Some(text),
        _ => None,
    });
    assert!(refused.unwrap().starts_with("OOM"));
}

#[test]
fn a_replica_follows_and_takes_over() {
    let mut primary = Redis::start();
    let mut replica = Redis::start_as(RedisOptions {
        replica_of: Some(primary.port()),
        ..RedisOptions::default()
    });
    primary.tell(&["SET", "k", "1"]);
    replica.wait_until_in_step_with(&primary);
    assert_eq!(replica.tell(&["GET", "k"]), text("1"));
    assert!(matches!(
        replica.ask(&["SET", "k", "2"]),
        Ok(RedisAnswer::Error(_))
    ));
    primary.kill9();
    replica.promote();
    replica.tell(&["SET", "k", "2"]);
    // The old one comes back empty, as a copy of the new one.
    primary.follow(replica.port());
    primary.restart_empty();
    primary.wait_until_in_step_with(&replica);
    assert_eq!(primary.tell(&["GET", "k"]), text("2"));
}

#[test]
fn a_paused_redis_answers_later() {
    let mut redis = Redis::start();
    redis.pause();
    let asked = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| redis.ask(&["PING"]));
        std::thread::park_timeout(Duration::from_millis(300));
        let early = waiting.is_finished();
        let pid = redis.pid().unwrap().to_string();
        let kill = Command::new("kill").args(["-s", "CONT", &pid]).status();
        assert!(kill.unwrap().success());
        (early, waiting.join().unwrap().unwrap())
    });
    assert_eq!(asked, (false, text("PONG")));
    redis.resume();
    redis.pause();
    redis.restart();
    assert_eq!(redis.tell(&["PING"]), text("PONG"));
}

#[test]
fn a_slot_of_a_cluster_moves_step_by_step() {
    let cluster = RedisCluster::start();
    let keys = ["{a}1", "{a}2", "{a}3"];
    let slot = cluster.slot_of(b"{a}1");
    let from = cluster.owner_of(slot).unwrap();
    let to = (from + 1) % 3;
    let (old, new) = (&cluster.nodes()[from], &cluster.nodes()[to]);
    for key in keys {
        old.tell(&["SET", key, key]);
    }
    let error = |answer| match answer {
        Ok(RedisAnswer::Error(text)) => text.split(' ').next().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error(new.ask(&["GET", keys[0]])), "MOVED");
    let moving = cluster.begin_move(slot, from, to);
    assert_eq!(moving.keys(10).len(), 3);
    moving.move_keys(&[keys[0].into()]);
    // In the middle: what is gone is asked for elsewhere, what is here is served, and both at once cannot be.
    assert_eq!(error(old.ask(&["GET", keys[0]])), "ASK");
    assert_eq!(old.tell(&["GET", keys[1]]), text(keys[1]));
    assert_eq!(error(old.ask(&["MGET", keys[0], keys[1]])), "TRYAGAIN");
    moving.finish();
    assert_eq!(error(old.ask(&["GET", keys[1]])), "MOVED");
    for key in keys {
        assert_eq!(new.tell(&["GET", key]), text(key));
    }
    assert_eq!(cluster.owner_of(slot), Some(to));
}

#[test]
fn a_replica_of_a_cluster_takes_the_place_of_its_primary() {
    let mut cluster = RedisCluster::start_with(&RedisClusterOptions {
        replicas: true,
        ..RedisClusterOptions::default()
    });
    let slot = cluster.slot_of(b"k");
    let owner = cluster.owner_of(slot).unwrap();
    cluster.node(owner).tell(&["SET", "k", "v"]);
    let (primary, replica) = (&cluster.nodes()[owner], &cluster.nodes()[owner + 3]);
    replica.wait_until_in_step_with(primary);
    cluster.node(owner).kill9();
    for _ in 0..1000 {
        let answer = cluster.nodes()[owner + 3].ask(&["GET", "k"]);
        let serves = matches!(answer, Ok(answer) if answer == text("v"));
        if serves && cluster.owner_of(slot) == Some(owner + 3) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("the replica did not take over");
}

#[test]
fn redis_starts_with_arguments() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    assert!(redis.url().ends_with(&redis.port().to_string()));
    redis.kill9();
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_err());
    redis.restart();
    assert!(redis.pid().is_some());
}

/// Starts this test program anew as a process that only starts a server and is then killed.
#[test]
fn a_server_ends_when_its_test_is_killed() {
    const CHILD: &str = "TIDEGATE_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let redis = Redis::start();
        println!("pid={}", redis.pid().unwrap());
        std::io::stdout().flush().unwrap();
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_server_ends_when_its_test_is_killed",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let pid = std::io::BufRead::lines(out)
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("pid=")?.1.to_owned()))
        .unwrap();
    let process = format!("/proc/{pid}");
    assert!(Path::new(&process).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..500 {
        // A killed process without a parent that waits for it may stay as an empty entry.
        let command = std::fs::read(format!("{process}/cmdline")).unwrap_or_default();
        if command.is_empty() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("the server outlived the test");
}
