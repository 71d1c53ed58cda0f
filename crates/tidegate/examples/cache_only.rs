//! Cache-only: no database behind the keys; they live in memory, within its bound, until they expire or there
//! is no room.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]
#![expect(
    clippy::disallowed_methods,
    reason = "a program may simply wait; the library may not"
)]

use std::error::Error;
use std::time::Duration;

use tidegate::memory::MemoryStore;
use tidegate::{Class, Strategy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gate = tidegate::builder()
        .near_bytes(1 << 20)
        .store(MemoryStore::new()) // for other classes; this one never touches it
        .class(Class::new("captcha", "captcha:*").strategy(Strategy::CacheOnly))
        .open()
        .await?;

    let until = gate.now().after(Duration::from_millis(20));
    gate.set_with("captcha:1", "kx7wq", Some(until)).await?;
    println!("now: {:?}", gate.get("captcha:1").await?);
    tokio::time::sleep(Duration::from_millis(25)).await;
    println!("25 ms later: {:?}", gate.get("captcha:1").await?);

    for n in 0..20_000 {
        gate.set(format!("captcha:{n}"), "kx7wq").await?;
    }
    let near = gate.stats().near;
    println!(
        "20000 written, {} kept in {} of {} bytes",
        near.entries, near.bytes, near.capacity_bytes
    );
    assert!(near.bytes <= near.capacity_bytes);

    gate.drain(Duration::from_secs(5)).await?;
    Ok(())
}
