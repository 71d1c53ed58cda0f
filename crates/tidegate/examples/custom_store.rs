//! A store of your own: say how a database reads, writes and lists rows, and `RowStore` makes a store of it.
//! Here the database is a map; a test holds it to everything that a store must do.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Bound::{Excluded, Included, Unbounded};

use tidegate::Key;
use tidegate::port::{Row, RowChange, RowStore, Rows, StoreError};

type Answer<T> = Result<T, StoreError>;

/// The database: rows by table and key.
#[derive(Default)]
pub(crate) struct Map(BTreeMap<(String, Key), Row>);

impl Rows for Map {
    fn get(&mut self, table: &str, key: &Key) -> Answer<Option<Row>> {
        Ok(self.0.get(&(table.to_owned(), key.clone())).cloned())
    }

    fn put(&mut self, changes: Vec<RowChange>) -> Answer<()> {
        for RowChange { table, key, row } in changes {
            match row {
                Some(row) => self.0.insert((table.to_string(), key), row),
                None => self.0.remove(&(table.to_string(), key)),
            };
        }
        Ok(())
    }

    fn list(&mut self, table: &str, after: Option<&Key>, limit: usize) -> Answer<Vec<(Key, Row)>> {
        let from = match after {
            Some(key) => Excluded((table.to_owned(), key.clone())),
            None => Included((table.to_owned(), Key::from(""))),
        };
        let rows = self.0.range((from, Unbounded)).take(limit);
        let rows = rows.take_while(|((name, _), _)| name == table);
        Ok(rows
            .map(|((_, key), row)| (key.clone(), row.clone()))
            .collect())
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example talks to a person")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = RowStore::new("map", false, Map::default());
    let gate = tidegate::builder().store(store).open().await?;
    gate.set("greeting", "hello from a store of my own").await?;
    gate.evict(b"greeting");
    let read = gate.read(b"greeting").await?;
    println!(
        "from the {:?}: {:?}",
        read.receipt.source,
        read.entry.map(|entry| entry.value)
    );
    Ok(())
}
