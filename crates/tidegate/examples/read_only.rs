//! Read-only: reads are cached, and a write is refused before anything is done.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::memory::MemoryStore;
use tidegate::{Class, ErrorKind, Strategy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Another program fills the table.
    let store = MemoryStore::new();
    let other = tidegate::builder()
        .store(store.clone())
        .class(Class::new("price", "price:*"))
        .open()
        .await?;
    other.set("price:tea", "3.20").await?;
    other.drain(Duration::from_secs(5)).await?;

    let prices = Class::new("price", "price:*")
        .strategy(Strategy::ReadOnly)
        .ttl(Duration::from_secs(300));
    let gate = tidegate::builder()
        .store(store)
        .class(prices)
        .open()
        .await?;
    println!("price:tea is {:?}", gate.get("price:tea").await?);

    let Err(error) = gate.set("price:tea", "0.01").await else {
        return Err("a read-only class took a write".into());
    };
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    println!("a write is refused: {error}");
    println!("price:tea is {:?}", gate.get("price:tea").await?);

    gate.drain(Duration::from_secs(5)).await?;
    Ok(())
}
