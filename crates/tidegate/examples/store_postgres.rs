//! PostgreSQL as the store. Needs a database you may make tables in, named by DATABASE_URL:
//!
//! `DATABASE_URL=postgres://user@localhost/shop cargo run --features postgres --example store_postgres`

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use tidegate::Class;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Ok(url) = std::env::var("DATABASE_URL") else {
        return Err("set DATABASE_URL, such as postgres://user@localhost/shop".into());
    };
    let gate = tidegate::builder()
        .store_arc(tidegate::open_store(&url).await?)
        .class(Class::new("example_order", "order:*"))
        .open()
        .await?;
    println!("before: {:?}", gate.get("order:7").await?);
    let written = gate.set("order:7", "paid").await?;
    println!("committed as version {}", written.receipt.version);
    println!("in psql: select * from example_order;");
    gate.drain(Duration::from_secs(5)).await?;
    Ok(())
}
