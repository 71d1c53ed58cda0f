//! The test servers start, survive what is done to them, and end with the process that started them.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use tidegate_testkit::servers::{Postgres, Redis};

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
        std::io::Write::flush(&mut std::io::stdout()).unwrap();
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
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!("the server outlived the test");
}
