//! Write-around: writes go to the store and take no room in memory; the cache is filled by reads only.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::memory::MemoryStore;
use tidegate::{Class, Strategy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let views = Class::new("view", "view:*")
        .strategy(Strategy::WriteAround)
        .ttl(Duration::from_secs(60));
    let gate = tidegate::builder()
        .store(MemoryStore::new())
        .class(views)
        .open()
        .await?;

    gate.set_many((0..1000).map(|n| (format!("view:{n}"), "seen")))
        .await?;
    println!(
        "1000 rows written, {} entries in memory",
        gate.stats().near.entries
    );

    println!(
        "first read from the {:?}",
        gate.read(b"view:7").await?.receipt.source
    );
    println!(
        "second read from the {:?} cache",
        gate.read(b"view:7").await?.receipt.source
    );
    println!("{} entry in memory", gate.stats().near.entries);

    gate.set("view:7", "seen again").await?;
    println!(
        "after a write the copy is gone: {}",
        gate.explain(b"view:7").state.as_str()
    );
    println!(
        "and a read gets the new value: {:?}",
        gate.get("view:7").await?
    );

    gate.drain(Duration::from_secs(5)).await?;
    Ok(())
}
