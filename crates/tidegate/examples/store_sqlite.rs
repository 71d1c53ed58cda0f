//! SQLite as the store: a file, nothing to install, and the rows outlive the program.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::Class;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite:{}", folder.path().join("shop.db").display());
    for run in ["first", "second"] {
        let gate = tidegate::builder()
            .store_arc(tidegate::open_store(&url).await?)
            .class(Class::new("order", "order:*"))
            .open()
            .await?;
        println!("{run} run finds {:?}", gate.get("order:7").await?);
        gate.set("order:7", "paid").await?;
        gate.drain(Duration::from_secs(5)).await?;
    }
    println!("in the sqlite3 shell: select key, value from \"order\";");
    Ok(())
}
