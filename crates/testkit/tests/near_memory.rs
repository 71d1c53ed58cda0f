//! The bytes that the near cache counts are the bytes that it takes: the process's resident memory grows by
//! about what the bound says. Alone in its process, so that nothing else allocates meanwhile.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that meets an error has failed"
)]

use std::process::Command;
use std::time::Duration;

use tidegate_core::memory::MemoryStore;
use tidegate_core::port::{BoxFuture, Clock, Timestamp};
use tidegate_core::{Class, Gate, Strategy};

/// Stands still.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn random(&self) -> u64 {
        7
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

async fn measure(value_bytes: u64) {
    let capacity = 96 << 20;
    let gate = Gate::builder()
        .clock(Stopped)
        .store(MemoryStore::new())
        .near_bytes(capacity)
        .class(Class::new("c", "c:*").strategy(Strategy::CacheOnly))
        .open()
        .await
        .unwrap();
    let before = resident();
    // Three times what fits, so that the cache is full and has evicted.
    for i in 0..3 * capacity / (200 + value_bytes) {
        gate.set(format!("c:{i:014}"), vec![1; value_bytes as usize])
            .await
            .unwrap();
    }
    let stats = gate.stats().near;
    assert!(
        stats.bytes <= capacity && stats.bytes > capacity * 9 / 10,
        "{stats:?}"
    );
    let taken = resident() - before;
    let share = taken as f64 / stats.bytes as f64;
    println!(
        "values of {value_bytes} bytes: {} counted and {} taken an entry",
        stats.bytes / stats.entries,
        taken / stats.entries
    );
    assert!(
        (0.6..1.2).contains(&share),
        "{} bytes counted, {taken} taken",
        stats.bytes
    );
}

/// Each size in a process of its own: what one gives back the next would take without growing.
#[test]
fn what_is_counted_is_what_is_taken() {
    const SIZE: &str = "TIDEGATE_TEST_VALUE_BYTES";
    if let Ok(value_bytes) = std::env::var(SIZE) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        return runtime.block_on(measure(value_bytes.parse().unwrap()));
    }
    for value_bytes in [10, 100, 2_000] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_is_counted_is_what_is_taken", "--nocapture"])
            .env(SIZE, value_bytes.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        println!("{text}");
        let errors = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{text}\n{errors}");
        assert!(
            text.contains("an entry"),
            "the child measured nothing: {text}"
        );
    }
}
