//! The store in memory: for tests of your own code. A clone is another connection to the same rows.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::memory::MemoryStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::new();
    for run in ["first", "second"] {
        let gate = tidegate::builder().store(store.clone()).open().await?;
        println!("{run} run finds {:?}", gate.get("greeting").await?);
        gate.set("greeting", format!("hello from the {run} run"))
            .await?;
        gate.drain(Duration::from_secs(5)).await?;
    }
    Ok(())
}
