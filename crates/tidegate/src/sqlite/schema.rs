//! All that the database must hold, as text: for those who look at it, or make it, before the store does.

use std::fmt::Write as _;

use tidegate_core::port::{StoreError, TableSpec};

use super::connect::SUPPORT;
use super::table;

/// The statements that make what a store over these tables needs, in the order to run them; it is what the store runs
/// itself where something is missing. What is there already is left as it is, so they can be run again.
///
/// # Errors
/// [`StoreError::Configuration`] if a name cannot be that of a table or column.
pub fn schema(tables: &[TableSpec]) -> Result<String, StoreError> {
    let mut text = String::new();
    let mut add = |why: &str, statements: &str| {
        // Writing into a text does not fail.
        let _ = writeln!(text, "-- {why}\n{}\n", statements.trim_end());
    };
    add(
        "What the store keeps for itself, whatever its tables are.",
        SUPPORT,
    );
    for spec in tables {
        table::check(spec)?;
        // A name goes into a comment on one line.
        let shown = spec.name.escape_debug();
        if spec.create {
            add(&format!("The rows of table {shown}."), &table::create(spec));
        }
        if spec.create || spec.trigger {
            add(
                &format!("Raises the version of rows of table {shown} that others change."),
                &table::raise(&spec.name, spec),
            );
        } else {
            add(
                &format!("Table {shown} is there already, and stays as it is."),
                "",
            );
        }
    }
    Ok(format!("{}\n", text.trim_end()))
}
