//! GET and SET through the server beside redis-server, driven by redis-benchmark in the same run.
//!
//! `cargo bench -p tidegate-server --bench redis_benchmark`. Fifty connections, values of 100 bytes, 100,000
//! keys, pipelines of 1 and 16; rounds alternate between the servers and medians are printed. Nothing here
//! fails. SET is measured for a cache-only class, for write-back of durability `memory` and `journal`; for
//! redis-server without persistence, and with `appendfsync always` beside `journal`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends at an error"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tidegate_testkit::servers::Redis;

const ROUNDS: usize = 5;
const PIPELINES: [usize; 2] = [1, 16];

/// A tidegate of one class, killed when dropped.
struct Tidegate {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tidegate(class: &str) -> Tidegate {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("tidegate.toml");
    std::fs::write(
        &config,
        format!("[[class]]\nname = \"bench\"\nkeys = \"key:*\"\n{class}"),
    )
    .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line.split_once("listening on 127.0.0.1:").unwrap().1;
    let port = port.split_whitespace().next().unwrap().parse().unwrap();
    Tidegate {
        child,
        port,
        _folder: folder,
    }
}

/// Requests per second of one test.
fn measure(port: u16, test: &str, pipeline: usize) -> f64 {
    let requests = if pipeline == 1 { 100_000 } else { 600_000 };
    let output = Command::new("redis-benchmark")
        .args([
            "-h",
            "127.0.0.1",
            "-c",
            "50",
            "-d",
            "100",
            "-r",
            "100000",
            "--csv",
        ])
        .args(["-p", &port.to_string(), "-t", test])
        .args(["-n", &requests.to_string(), "-P", &pipeline.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().last().unwrap();
    line.split(',')
        .nth(1)
        .unwrap()
        .trim_matches('"')
        .parse()
        .unwrap()
}

fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let redis = Redis::start();
    let always = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let cache_only = tidegate("strategy = \"cache-only\"\n");
    let memory =
        tidegate("strategy = \"write-back\"\ndurability = \"memory\"\ndirty_max = \"1GiB\"\n");
    let journal = tidegate("strategy = \"write-back\"\ndirty_max = \"1GiB\"\n");
    let sides = [
        ("redis-server", redis.port()),
        ("redis-server appendfsync always", always.port()),
        ("tidegate cache-only", cache_only.port),
        ("tidegate write-back memory", memory.port),
        ("tidegate write-back journal", journal.port),
    ];
    for (_, port) in sides {
        measure(port, "set", 16);
    }
    for test in ["get", "set"] {
        for pipeline in PIPELINES {
            let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for _ in 0..ROUNDS {
                for (name, port) in sides {
                    rates
                        .entry(name)
                        .or_default()
                        .push(measure(port, test, pipeline));
                }
            }
            println!("{test}, pipeline {pipeline}:");
            for (name, _) in sides {
                let ratio = |beside: &str| {
                    let pairs = rates[name].iter().zip(&rates[beside]);
                    median(
                        &pairs
                            .map(|(ours, theirs)| ours / theirs)
                            .collect::<Vec<_>>(),
                    )
                };
                println!(
                    "  {name:32} {:>9.0}/s  {:.2} of redis-server, {:.2} of appendfsync always",
                    median(&rates[name]),
                    ratio("redis-server"),
                    ratio("redis-server appendfsync always"),
                );
            }
        }
    }
}
