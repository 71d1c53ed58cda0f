//! A request log is replayed through Redis connections, its keys spread over three classes of three
//! strategies; at the end every key's row is what its last acknowledged request left.
//!
//! Without further word a short log is drawn from a fixed seed. `TIDEGATE_TRACES=FOLDER` replays every
//! `*.txt` and `*.txt.gz` in the folder instead (one request a line: `op key size [ttl]`), and
//! `TIDEGATE_TRACE_LINES=N` only the first N requests of each.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that meets an error has failed"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the rate of a replay is for people"
)]

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use support::{Client, Folder, ok};
use tidegate::port::{Store, TableSpec, Timestamp};
use tidegate::{Entry, Key, open_store};
use tidegate_resp::Reply;
use tidegate_testkit::servers::Postgres;

const CONNECTIONS: usize = 8;
const PIPELINE: usize = 32;
const CLASSES: [&str; 3] = ["through", "back", "around"];

#[derive(Clone, Debug)]
enum Request {
    Get,
    Set { size: usize, ttl: u64 },
    Delete,
    Increment,
}

/// What a key holds after the requests answered so far.
#[derive(Clone, Debug, Default)]
struct Held {
    value: Option<Vec<u8>>,
    /// When it dies, at the earliest and at the latest: between these moments it may be there or not.
    dies: Option<(Instant, Instant)>,
}

impl Held {
    /// Forgets what died for certain before a pipeline was sent at `sent`; tells whether it may have died by
    /// now.
    fn age(&mut self, sent: Instant) -> bool {
        let Some((earliest, latest)) = self.dies else {
            return false;
        };
        if latest <= sent {
            *self = Self::default();
        }
        earliest <= Instant::now()
    }
}

fn parse(log: &str) -> Vec<(String, Request)> {
    let mut requests = Vec::new();
    for line in log.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.split(' ');
        let (op, key) = (fields.next().unwrap(), fields.next().unwrap());
        let mut number = || {
            fields
                .next()
                .map_or(0, |field| field.parse::<u64>().unwrap())
        };
        let (size, ttl) = (number(), number());
        let request = match op {
            "get" => Request::Get,
            "set" => Request::Set {
                size: size as usize,
                ttl,
            },
            "del" => Request::Delete,
            "incr" => Request::Increment,
            other => panic!("no such request: {other}"),
        };
        requests.push((key.to_owned(), request));
    }
    requests
}

fn class_of(key: &str) -> &'static str {
    let sum: usize = key.bytes().map(usize::from).sum();
    CLASSES[sum % CLASSES.len()]
}

/// Replays the requests of one connection, in order, and returns what every key must hold.
fn replay(port: u16, requests: &[(String, Request)]) -> HashMap<String, Held> {
    let mut client = Client::connect(port);
    let mut held: HashMap<String, Held> = HashMap::new();
    for (place, chunk) in requests.chunks(PIPELINE).enumerate() {
        let mut bytes = BytesMut::new();
        let mut values = Vec::with_capacity(chunk.len());
        for (i, (key, request)) in chunk.iter().enumerate() {
            let mut value = Vec::new();
            match request {
                Request::Get => tidegate_resp::encode_request(&mut bytes, &["GET", key]),
                Request::Delete => tidegate_resp::encode_request(&mut bytes, &["DEL", key]),
                Request::Increment => tidegate_resp::encode_request(&mut bytes, &["INCR", key]),
                Request::Set { size, ttl } => {
                    value = format!("{place}.{i}.").into_bytes();
                    value.resize((*size).max(1), b'v');
                    let ttl = ttl.to_string();
                    let mut arguments: Vec<&[u8]> = vec![b"SET", key.as_bytes(), &value];
                    if ttl != "0" {
                        arguments.extend([b"EX", ttl.as_bytes()]);
                    }
                    tidegate_resp::encode_request(&mut bytes, &arguments);
                }
            }
            values.push(value);
        }
        let sent = Instant::now();
        client.write(&bytes);
        for ((key, request), value) in chunk.iter().zip(values) {
            let reply = client.read();
            let state = held.entry(key.clone()).or_default();
            let may_be_dead = state.age(sent);
            match request {
                Request::Get if may_be_dead && reply == Reply::Null => *state = Held::default(),
                Request::Get => {
                    let expected = match &state.value {
                        Some(value) => Reply::bulk(value.clone()),
                        None => Reply::Null,
                    };
                    assert_eq!(reply, expected, "GET {key}");
                }
                Request::Set { ttl, .. } => {
                    assert_eq!(reply, ok(), "SET {key}");
                    let life = Duration::from_secs(*ttl);
                    let dies = (*ttl != 0).then(|| (sent + life, Instant::now() + life));
                    *state = Held {
                        value: Some(value),
                        dies,
                    };
                }
                Request::Delete => {
                    let there = reply == Reply::Integer(1);
                    assert!(
                        matches!(reply, Reply::Integer(0 | 1)),
                        "DEL {key}: {reply:?}"
                    );
                    let expected = state.value.is_some();
                    assert!(
                        there == expected || may_be_dead && !there,
                        "DEL {key}: {reply:?}"
                    );
                    *state = Held::default();
                }
                Request::Increment => {
                    if may_be_dead && reply == Reply::Integer(1) {
                        *state = Held::default();
                    }
                    increment(key, state, &reply);
                }
            }
        }
    }
    held
}

fn increment(key: &str, state: &mut Held, reply: &Reply) {
    let text = state.value.as_deref().unwrap_or(b"0");
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    match number {
        Some(number) => {
            assert_eq!(*reply, Reply::Integer(number + 1), "INCR {key}");
            state.value = Some((number + 1).to_string().into_bytes());
        }
        None => assert!(
            matches!(reply, Reply::Error(_)),
            "INCR {key} of no number: {reply:?}"
        ),
    }
}

/// Every row of a class's table.
async fn rows(store: &dyn Store, class: &str) -> HashMap<String, Entry> {
    let table = store.open_table(&TableSpec::named(class)).await.unwrap();
    let mut rows = HashMap::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store
            .scan(table, after.as_ref(), 1000, Timestamp::from_millis(1))
            .await
            .unwrap();
        let Some((last, _)) = page.last() else {
            return rows;
        };
        after = Some(last.clone());
        for (key, entry) in page {
            rows.insert(String::from_utf8(key.as_bytes().to_vec()).unwrap(), entry);
        }
    }
}

fn run(name: &str, requests: &[(String, Request)], store: Option<&str>) {
    let folder = Folder::new();
    let section = store.map_or(String::new(), |url| format!("[store]\nurl = \"{url}\"\n"));
    let server = folder.serve_config(&format!(
        "{section}[near]\ncapacity = \"16MiB\"\n\
         [[class]]\nname = \"through\"\nkeys = \"through:*\"\n\
         [[class]]\nname = \"back\"\nkeys = \"back:*\"\nstrategy = \"write-back\"\n\
         [[class]]\nname = \"around\"\nkeys = \"around:*\"\nstrategy = \"write-around\"\nttl = \"60s\"\n"
    ));
    // All requests of a key go through one connection, so that their order is that of the log.
    let mut shares: Vec<Vec<(String, Request)>> = vec![Vec::new(); CONNECTIONS];
    for (key, request) in requests {
        let share = key.bytes().fold(7_usize, |hash, byte| {
            hash.wrapping_mul(31) ^ usize::from(byte)
        });
        let key = format!("{}:{key}", class_of(key));
        shares[share % CONNECTIONS].push((key, request.clone()));
    }
    let start = Instant::now();
    let port = server.port();
    let clients: Vec<_> = shares
        .into_iter()
        .map(|share| thread::spawn(move || replay(port, &share)))
        .collect();
    let mut held = HashMap::new();
    for client in clients {
        held.extend(client.join().unwrap());
    }
    let took = start.elapsed();
    assert_eq!(
        server.terminate(),
        0,
        "a drain that leaves nothing\n{}",
        folder.stderr()
    );
    let own = format!("sqlite:{}", folder.data().join("store.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let compared = runtime.block_on(async {
        let store: Arc<dyn Store> = open_store(store.unwrap_or(&own)).await.unwrap();
        let mut stored = HashMap::new();
        for class in CLASSES {
            stored.extend(rows(&*store, class).await);
        }
        let present = held.iter().filter(|(_, held)| held.value.is_some());
        let (mut compared, now) = (0, Instant::now());
        for (key, held) in present {
            let dead = held.dies.is_some_and(|(earliest, _)| earliest <= now);
            let Some(row) = stored.remove(key) else {
                assert!(dead, "{key} has no row");
                continue;
            };
            assert_eq!(
                row.expires_at.is_some(),
                held.dies.is_some(),
                "the end of life of {key}"
            );
            assert!(
                dead || Some(&row.value[..]) == held.value.as_deref(),
                "{key}"
            );
            compared += 1;
        }
        // Rows that died are swept in time, and may still lie there; no reader sees them.
        stored.retain(|key, row| {
            let known = held.get(key).is_some_and(|held| held.value.is_none());
            !(known && row.expires_at.is_some())
        });
        assert!(
            stored.is_empty(),
            "rows nobody wrote: {:?}",
            stored.keys().take(5).collect::<Vec<_>>()
        );
        compared
    });
    println!(
        "{name}, {}: {} requests in {took:.1?} ({:.0}/s), {compared} rows equal",
        if store.is_some() {
            "PostgreSQL"
        } else {
            "embedded"
        },
        requests.len(),
        requests.len() as f64 / took.as_secs_f64()
    );
}

/// A short log: half reads, few hot keys, some counters, some deletes, some with an end.
fn drawn() -> Vec<(String, Request)> {
    let mut random = fastrand::Rng::with_seed(11);
    (0..20_000)
        .map(|_| {
            let rank = (random.f64().powi(3) * 500.0) as usize;
            match random.u32(..100) {
                0..45 => (format!("k{rank}"), Request::Get),
                45..80 => (
                    format!("k{rank}"),
                    Request::Set {
                        size: random.usize(1..400),
                        ttl: 0,
                    },
                ),
                80..88 => (
                    format!("k{rank}"),
                    Request::Set {
                        size: 50,
                        ttl: 3600,
                    },
                ),
                88..93 => (format!("k{rank}"), Request::Delete),
                93..98 => (format!("n{}", rank % 20), Request::Increment),
                _ => (format!("k{rank}"), Request::Increment),
            }
        })
        .collect()
}

fn logs() -> Vec<(String, Vec<(String, Request)>)> {
    let Some(folder) = std::env::var_os("TIDEGATE_TRACES") else {
        return vec![("drawn".into(), drawn())];
    };
    let limit = std::env::var("TIDEGATE_TRACE_LINES")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut paths: Vec<_> = std::fs::read_dir(Path::new(&folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.retain(|path| path.to_string_lossy().contains(".txt"));
    let read = |path: &Path| {
        let program = if path.extension().is_some_and(|e| e == "gz") {
            "zcat"
        } else {
            "cat"
        };
        let output = Command::new(program).arg(path).output().unwrap();
        assert!(output.status.success());
        let mut requests = parse(&String::from_utf8(output.stdout).unwrap());
        requests.truncate(limit.unwrap_or(usize::MAX));
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            requests,
        )
    };
    paths.iter().map(|path| read(path)).collect()
}

#[test]
fn a_request_log_leaves_its_last_writes_on_the_embedded_default() {
    for (name, requests) in logs() {
        run(&name, &requests, None);
    }
}

#[test]
fn a_request_log_leaves_its_last_writes_in_postgresql() {
    let postgres = Postgres::shared();
    for (name, requests) in logs() {
        run(
            &name,
            &requests,
            Some(&postgres.url(&postgres.fresh_database())),
        );
    }
}
