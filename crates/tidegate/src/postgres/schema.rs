//! All that the database must hold, as text: for somebody who may make it, where the role of the store may not.

use std::fmt::Write as _;

use tidegate_core::port::{StoreError, TableSpec};

use super::ddl;
use super::sql::quote;
use super::support::Support;
use super::table;

/// The statements that make what a store over these tables needs, in the order to run them; it is what the store runs
/// itself where something is missing. What is there already is left as it is, so they can be run again. They are to be
/// run as the owner of the tables, with `schema` for the store's own objects and for tables that name no schema. At
/// the end, as comments, what a role needs that is only to use them; with `schema` as the first of its search path.
///
/// # Errors
/// [`StoreError::Configuration`] if a name cannot be that of a table, column or schema.
pub fn schema(schema: &str, tables: &[TableSpec]) -> Result<String, StoreError> {
    let fits = !schema.is_empty() && !schema.contains('\0');
    if !fits || schema.len() > table::NAME_BYTES_MAX {
        return Err(StoreError::configuration(format_args!(
            "{schema:?} cannot be the name of a schema"
        )));
    }
    let support = Support::named(schema);
    let mut text = String::new();
    let own = quote(schema);
    let mut add = |why: &str, statements: &str| {
        // Writing into a text does not fail.
        let _ = writeln!(text, "-- {why}\n{statements}\n");
    };
    add(
        "Names without a schema mean this one.",
        &format!("set search_path to {own};"),
    );
    add(
        "What the store keeps for itself, whatever its tables are.",
        support.ddl().trim_end(),
    );
    let mut grants = vec![
        format!("grant usage on schema {own} to tidegate;"),
        format!(
            "grant usage, select, update on sequence {} to tidegate;",
            support.sequence
        ),
        format!(
            "grant usage on sequence {} to tidegate;",
            support.outbox_numbers
        ),
    ];
    grants.extend(
        [
            &support.meta,
            &support.tombstone,
            &support.session,
            &support.node,
            &support.outbox,
            &support.outbox_start,
        ]
        .map(|name| format!("grant select, insert, update, delete on {name} to tidegate;")),
    );
    for spec in tables {
        table::check_names(spec)?;
        let quoted = ddl::quoted(&spec.name);
        // A name goes into a comment on one line.
        let shown = spec.name.escape_debug();
        let elsewhere = spec.name.split_once('.').map(|names| names.0);
        let within = Some(elsewhere.unwrap_or(schema));
        let qualified = match elsewhere {
            Some(_) => quoted.clone(),
            None => format!("{own}.{quoted}"),
        };
        if spec.create {
            add(
                &format!(
                    "The rows of table {shown}, and what raises the version of one that others change."
                ),
                &terminated(&ddl::create(within, &qualified, spec)),
            );
        } else {
            add(&format!("Table {shown} is there already."), "");
        }
        if spec.trigger {
            add(
                &format!("Raises the version of rows of table {shown} that others change."),
                &terminated(&ddl::raise_missing(within, &qualified, spec)),
            );
        }
        if spec.outbox {
            add(
                &format!("Notes in the outbox what others change in table {shown}."),
                &terminated(&ddl::watch(&support, &qualified, spec)),
            );
        }
        if let Some(elsewhere) = elsewhere {
            grants.push(format!(
                "grant usage on schema {} to tidegate;",
                quote(elsewhere)
            ));
        }
        grants.push(format!(
            "grant select, insert, update, delete on {qualified} to tidegate;"
        ));
    }
    grants.sort();
    grants.dedup();
    // Also where a name has several lines.
    let grants = grants.iter().flat_map(|grant| grant.split(['\n', '\r']));
    let grants: Vec<String> = grants.map(|line| format!("-- {line}")).collect();
    add(
        "A role that only uses all this, here named tidegate, needs these rights and no others:",
        &grants.join("\n"),
    );
    Ok(format!("{}\n", text.trim_end()))
}

fn terminated(statements: &str) -> String {
    format!("{};", statements.trim_end().trim_end_matches(';'))
}
