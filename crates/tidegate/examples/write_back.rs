//! Write-back: acknowledged when the journal is synced; the store follows in batches, one row per key however
//! often the key was written.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::memory::MemoryStore;
use tidegate::{Class, Key, Strategy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = MemoryStore::new();
    let sessions = Class::new("session", "session:*")
        .strategy(Strategy::WriteBack)
        .linger(Duration::from_secs(60));
    let gate = tidegate::builder()
        .store(store.clone())
        .journal_arc(tidegate::open_journal(&folder.path().join("journal")).await?)
        .class(sessions)
        .open()
        .await?;

    for page in 1..=100 {
        gate.set("session:1", format!("page {page}")).await?;
    }
    println!("100 writes acknowledged, synced to the journal");
    println!(
        "row in the store: {:?}",
        store.row("session", &Key::from("session:1"))
    );
    println!("a reader sees: {:?}", gate.get("session:1").await?);

    let report = gate.flush(Duration::from_secs(5)).await?;
    println!("flushed: {} row for 100 writes", report.flushed);
    let row = store
        .row("session", &Key::from("session:1"))
        .ok_or("the row is missing")?;
    println!("row in the store: {:?}", row.value);

    let report = gate.drain(Duration::from_secs(5)).await?;
    println!("drained, nothing left: {}", report.is_complete());
    Ok(())
}
