//! Typed values: structures in, structures out, each class in the codec it names.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate::memory::MemoryStore;
use tidegate::{Class, Codec, ErrorKind};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Order {
    customer: String,
    cents: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gate = tidegate::builder()
        .store(MemoryStore::new())
        .class(Class::new("order", "order:*").codec(Codec::Json))
        .class(Class::new("packed", "packed:*").codec(Codec::MessagePack))
        .open()
        .await?;
    let orders = gate.typed::<Order>();

    let order = Order {
        customer: "Ada".into(),
        cents: 1250,
    };
    for key in ["order:7", "packed:7"] {
        orders.set(key, &order).await?;
        let bytes = gate.get(key).await?.unwrap_or_default();
        println!("{key}: {} bytes in the store: {bytes:?}", bytes.len());
        assert_eq!(orders.get(key).await?.as_ref(), Some(&order));
    }

    gate.set("order:8", "not an order").await?;
    let Err(error) = orders.get("order:8").await else {
        return Err("nonsense was read as an order".into());
    };
    assert_eq!(error.kind(), ErrorKind::Codec);
    println!("what is no order is an error that does not show the value: {error}");

    gate.drain(Duration::from_secs(5)).await?;
    Ok(())
}
