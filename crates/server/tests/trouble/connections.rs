//! A database whose connections others have taken.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_testkit::servers::{Postgres, PostgresOptions};

use super::support::{Folder, error_text, ok};
use super::{figure, info};

/// Few, so that they are soon taken.
const CONNECTIONS: usize = 16;

fn psql(postgres: &Postgres, statements: &[&str]) -> Child {
    let mut command = Command::new("psql");
    command
        .args(["--no-psqlrc", "--quiet", "--username=postgres", "--host"])
        .arg(postgres.socket_folder())
        .args(["--port", &postgres.port().to_string()])
        .args(["--dbname", "postgres"]);
    for statement in statements {
        command.args(["--command", statement]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_database_without_a_free_connection_costs_write_back_nothing_but_time() {
    let postgres = Postgres::start_with(PostgresOptions {
        settings: vec![
            format!("max_connections={CONNECTIONS}"),
            "superuser_reserved_connections=0".into(),
        ],
        ..PostgresOptions::default()
    });
    let database = postgres.fresh_database();
    let folder = Folder::new();
    let server = folder.serve_config(&format!(
        "[store]\nurl = '{}'\n[[class]]\nname = 'back'\nkeys = 'back:*'\nstrategy = 'write-back'\nlinger = '10ms'\n\
         [[class]]\nname = 'through'\nkeys = 'through:*'\n",
        postgres.url(&database)
    ));
    let mut client = server.connect();
    client.expect("SET back:1 0", ok());
    client.expect("SET through:0 0", ok());
    // One of the strangers ends the server's connections; the others take every place that gets free.
    let end = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'"
    );
    let mut strangers = vec![psql(
        &postgres,
        &[
            "select pg_sleep(0.5)",
            &end,
            "select pg_sleep(0.05)",
            &end,
            "select pg_sleep(4)",
        ],
    )];
    let start = Instant::now();
    let mut refused = None;
    let mut written = 0;
    let (mut most_dirty, mut breakers) = (0, Vec::new());
    while start.elapsed() < Duration::from_secs(if refused.is_some() { 4 } else { 30 }) {
        strangers.retain_mut(|stranger| stranger.try_wait().unwrap().is_none());
        if refused.is_none() && start.elapsed() > Duration::from_secs(2) {
            // The server was quicker than the strangers: once more.
            strangers.push(psql(&postgres, &[&end, "select pg_sleep(1)"]));
        }
        while strangers.len() < CONNECTIONS + 4 {
            strangers.push(psql(&postgres, &["select pg_sleep(1)"]));
        }
        let first = written + 1;
        written += 500;
        let lines: Vec<String> = (first..=written)
            .map(|number| format!("SET back:{} {number}", number % 1000))
            .collect();
        client.send(&lines);
        lines
            .iter()
            .for_each(|line| assert_eq!(client.read(), ok(), "{line}"));
        // A write that must reach the store is told that it cannot, and why.
        if let reply @ tidegate_resp::Reply::Error(_) =
            client.ask(&format!("SET through:1 {written}"))
        {
            refused = Some(error_text(&reply));
        }
        let dirty: u64 = info(&mut client, "dirty_entries").parse().unwrap();
        most_dirty = most_dirty.max(dirty);
        let breaker = info(&mut client, "breaker");
        if breakers.last() != Some(&breaker) {
            breakers.push(breaker);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let failures = info(&mut client, "flush_failures");
    for mut stranger in strangers {
        let _ = stranger.kill();
        let _ = stranger.wait();
    }
    let refused = refused.expect("the strangers left a connection free");
    let start = Instant::now();
    let report = client.ask("TIDEGATE FLUSH TIMEOUT 60000");
    println!(
        "{written} writes acknowledged without a connection; at most {most_dirty} entries were dirty, {failures} \
         batches failed, the breaker was {breakers:?}; a write-through write was told: {refused}; all stored {:?} after the end of it",
        start.elapsed()
    );
    assert!(
        refused.starts_with("UNAVAILABLE ") || refused.starts_with("UNKNOWN "),
        "{refused}"
    );
    assert_eq!((figure(&report, "left"), figure(&report, "parked")), (0, 0));
    // What a stranger asked last goes on for up to a second after it is gone, and holds its place.
    while !psql(&postgres, &["select 1"]).wait().unwrap().success() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no place gets free"
        );
    }
    let rows = postgres.sql(&database, "select count(*), max(value::bigint) from back");
    assert_eq!(rows, format!("{}|{written}", written.min(1000)));
    assert_eq!(server.terminate(), 0);
}
