//! A mix: each class of keys by its own strategy, through one gate.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::memory::MemoryStore;
use tidegate::{Class, Strategy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let gate = tidegate::builder()
        .store(MemoryStore::new())
        .journal_arc(tidegate::open_journal(&folder.path().join("journal")).await?)
        .class(Class::new("order", "order:*").strategy(Strategy::WriteThrough))
        .class(Class::new("session", "session:*").strategy(Strategy::WriteBack))
        .class(Class::new("view", "view:*").strategy(Strategy::WriteAround))
        .open()
        .await?;

    for key in ["order:7", "session:1", "view:home", "anything else"] {
        let written = gate.set(key, "hello").await?;
        println!(
            "{key:13} class {:8} {:13} acknowledged by the {:?}, now {}",
            gate.class_of(key.as_bytes()).name,
            gate.class_of(key.as_bytes()).strategy.as_str(),
            written.receipt.durability,
            gate.explain(key.as_bytes()).state.as_str(),
        );
    }

    let report = gate.drain(Duration::from_secs(5)).await?;
    println!("drained, nothing left: {}", report.is_complete());
    Ok(())
}
