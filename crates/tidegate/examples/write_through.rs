//! Write-through: when `set` returns, the store has the row, and the next read is served from memory.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::memory::MemoryStore;
use tidegate::{Class, Key, Source};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::new();
    let gate = tidegate::builder()
        .store(store.clone())
        .class(Class::new("order", "order:*")) // write-through is what a class is unless it says otherwise
        .open()
        .await?;

    let written = gate.set("order:7", "paid").await?;
    let row = store
        .row("order", &Key::from("order:7"))
        .ok_or("the row is missing")?;
    println!(
        "acknowledged, durable in the {:?}",
        written.receipt.durability
    );
    println!("row in the table `order`: {:?}", row.value);

    let read = gate.read(b"order:7").await?;
    assert_eq!(read.receipt.source, Source::Near);
    println!(
        "read back from the {:?} cache, version {}",
        read.receipt.source, read.receipt.version
    );

    gate.drain(Duration::from_secs(5)).await?;
    Ok(())
}
