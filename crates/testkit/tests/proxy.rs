//! The proxy passes everything on, and does exactly the harm it is told to.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_testkit::proxy::{Direction, Faults, Proxy};
use tidegate_testkit::servers::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_secs(10);

/// A server that sends everything back behind its name.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut piece = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut piece).await {
                    let answer = [name.as_bytes(), &piece[..length]].concat();
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn ask(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    hear(stream).await
}

async fn hear(stream: &mut TcpStream) -> io::Result<String> {
    let mut piece = [0; 1024];
    match timeout(LATE, stream.read(&mut piece)).await.unwrap()? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(String::from_utf8_lossy(&piece[..length]).into_owned()),
    }
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port()));
    stream.await.unwrap()
}

#[tokio::test]
async fn the_target_changes_behind_one_address() {
    let (a, b) = (echo("a").await, echo("b").await);
    let proxy = Proxy::start(a, 1).await.unwrap();
    let mut old = connect(&proxy).await;
    assert_eq!(ask(&mut old, "1").await.unwrap(), "a1");
    proxy.set_target(b);
    assert_eq!(ask(&mut old, "2").await.unwrap(), "a2");
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut new, "3").await.unwrap(), "b3");
    assert_eq!((proxy.open(), proxy.accepted()), (2, 2));
    proxy.cut_all();
    assert!(ask(&mut old, "4").await.is_err());
    assert!(ask(&mut new, "5").await.is_err());
}

#[tokio::test]
async fn refused_held_and_healed() {
    let proxy = Proxy::start(echo("").await, 1).await.unwrap();
    let mut old = connect(&proxy).await;
    assert_eq!(ask(&mut old, "1").await.unwrap(), "1");
    proxy.set(Faults::refusing());
    let refused = async { ask(&mut connect(&proxy).await, "x").await };
    assert!(refused.await.is_err());
    assert_eq!(ask(&mut old, "2").await.unwrap(), "2");

    proxy.set(Faults::half_open());
    let mut new = connect(&proxy).await;
    for stream in [&mut old, &mut new] {
        assert!(timeout(SOON, ask(stream, "3")).await.is_err());
    }
    proxy.heal();
    // What was held back comes.
    for stream in [&mut old, &mut new] {
        assert_eq!(hear(stream).await.unwrap(), "3");
    }
}

#[tokio::test]
async fn one_way_only() {
    let proxy = Proxy::start(echo("").await, 1).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "1").await.unwrap(), "1");
    for way in [Direction::ToServer, Direction::ToClient] {
        proxy.set(Faults::only(way));
        assert!(timeout(SOON, ask(&mut stream, "2")).await.is_err());
        proxy.heal();
        assert_eq!(hear(&mut stream).await.unwrap(), "2");
    }
}

#[tokio::test]
async fn delays_keep_the_order_and_do_not_add_up() {
    let proxy = Proxy::start(echo("").await, 1).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "1").await.unwrap(), "1");
    let delay = Duration::from_millis(100);
    proxy.set(Faults::delayed(delay, delay));
    let start = Instant::now();
    let mut heard = String::new();
    for number in 0..10 {
        stream.write_all(&[b'0' + number]).await.unwrap();
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(2)).await;
    }
    while heard.len() < 10 {
        heard += &hear(&mut stream).await.unwrap();
    }
    assert_eq!(heard, "0123456789");
    // Twice the delay, not twenty times.
    assert!(start.elapsed() >= 2 * delay);
    assert!(start.elapsed() < 10 * delay, "{:?}", start.elapsed());
}

#[tokio::test]
async fn cut_after_so_many_bytes() {
    let proxy = Proxy::start(echo("").await, 1).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "1").await.unwrap(), "1");
    proxy.cut_after(Direction::ToClient, 3);
    assert_eq!(ask(&mut stream, "abcde").await.unwrap(), "abc");
    assert!(hear(&mut stream).await.is_err());
    assert_eq!(proxy.sprung(), 1);
    // Once only.
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "abcde").await.unwrap(), "abcde");
    proxy.cut_after(Direction::ToServer, 0);
    assert!(ask(&mut stream, "x").await.is_err());
    assert_eq!(proxy.sprung(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_has_happened() {
    let postgres = Postgres::shared();
    let database = postgres.fresh_database();
    postgres.sql(&database, "create table t (n int)");
    let target = SocketAddr::from(([127, 0, 0, 1], postgres.port()));
    let proxy = Proxy::postgres(target, 1).await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", proxy.port());
    // With prepared statements, as simple queries, and in the middle of others that are not waited for.
    for way in 0..3 {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute("begin").await.unwrap();
        let insert = format!("insert into t values ({way})");
        client.execute(&insert, &[]).await.unwrap();
        let before = proxy.sprung();
        proxy.lose_answer(|text| text == "commit");
        match way {
            0 => {
                let commit = client.prepare("commit").await.unwrap();
                assert!(client.execute(&commit, &[]).await.is_err());
            }
            1 => assert!(client.batch_execute("commit").await.is_err()),
            _ => {
                let (one, commit, other) = tokio::join!(
                    client.batch_execute("select 1"),
                    client.batch_execute("commit"),
                    client.batch_execute("select 2"),
                );
                assert!(one.is_ok() && commit.is_err() && other.is_err());
            }
        }
        assert!(driver.await.unwrap().is_err());
        assert_eq!(proxy.sprung(), before + 1);
        let rows = postgres.sql(
            &database,
            &format!("select count(*) from t where n = {way}"),
        );
        assert_eq!(rows, "1", "way {way}");
    }
    // And everything else is untouched.
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client.batch_execute("begin; commit").await.unwrap();
    let row = client.query_one("select count(*) from t", &[]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 3);
}
