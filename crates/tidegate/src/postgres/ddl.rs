//! What makes the tables of classes and their triggers, as text: run where something is missing, and shown to those who
//! run it themselves.

use tidegate_core::port::{TableSpec, ValueType};

use super::outside;
use super::sql::{self, quote};
use super::support::{LOCK_CLASS, Support};
use super::table::NAME_BYTES_MAX;

/// The name of the trigger. Each table has its own triggers, so it is the same for all.
pub(super) const RAISE: &str = "tidegate_raise";

/// `table` or `schema.table`, quoted.
pub(super) fn quoted(name: &str) -> String {
    match name.split_once('.') {
        Some((schema, table)) => format!("{}.{}", quote(schema), quote(table)),
        None => quote(name),
    }
}

/// A name made of others, within the length of names.
pub(super) fn fitted(first: &str, others: &[&str]) -> String {
    let name = format!("{first}_{}", others.join("_"));
    // With an underscore in several of them it would not tell where each ends.
    let is_clear = others.len() < 2 || others.iter().all(|name| !name.contains('_'));
    if is_clear && name.len() <= NAME_BYTES_MAX {
        return name;
    }
    // Cut, and told from others with the same beginning (FNV-1a, which stays the same for ever).
    let bytes = others.join("\0");
    let hash = bytes.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{first}__{hash:016x}")
}

/// The steps of a block that make the trigger: a row that is updated and keeps its version gets the next odd one. Our
/// own updates always bring another version, so for them the condition is all there is to it.
///
/// All tables of a schema share the function. One that another user owns cannot be replaced, and is used if it does
/// the same.
fn raise(schema: Option<&str>, quoted: &str, spec: &TableSpec) -> String {
    let version = quote(&spec.columns.version);
    let mut function = quote(&fitted(RAISE, &[&spec.columns.version]));
    if let Some(schema) = schema {
        function = format!("{}.{function}", quote(schema));
    }
    let body = sql::literal(&format!(
        "begin new.{version} := (greatest(new.{version}, 1) + 1) | 1; return new; end"
    ));
    format!(
        "begin
             create or replace function {function}() returns trigger language plpgsql
             set search_path = pg_catalog as {body};
         exception when insufficient_privilege then
             if not exists (select from pg_proc where oid = to_regprocedure({named}) and prosrc = {body}) then
                 raise;
             end if;
         end;
         create trigger {RAISE} before update on {quoted}
         for each row when (old.{version} is not distinct from new.{version})
         execute function {function}();",
        named = sql::literal(&format!("{function}()")),
    )
}

/// The statements that make the trigger where a table has none.
pub(super) fn raise_missing(schema: Option<&str>, quoted: &str, spec: &TableSpec) -> String {
    let raise = raise(schema, quoted, spec);
    let body = sql::dollar(&format!(
        "begin
             if not exists (select from pg_trigger where tgrelid = to_regclass({literal}) and tgname = '{RAISE}'
                 and tgenabled in ('O', 'A')) then
                 {raise}
             end if;
         end",
        literal = sql::literal(quoted),
    ));
    alone(&format!("do {body};"))
}

/// The statements that make the triggers of the outbox.
pub(super) fn watch(support: &Support, quoted: &str, spec: &TableSpec) -> String {
    let steps = outside::watch(support, quoted, spec);
    alone(&format!(
        "do {};",
        sql::dollar(&format!("begin {steps} end"))
    ))
}

/// One process after the other, and not twice.
fn alone(statements: &str) -> String {
    format!(
        "begin isolation level read committed read write;\n\
         select pg_advisory_xact_lock({LOCK_CLASS}, 0);\n\
         {statements}\n\
         commit"
    )
}

/// The statements that make a table, the index to sweep it by, and its trigger.
pub(super) fn create(schema: Option<&str>, quoted: &str, spec: &TableSpec) -> String {
    let raise = raise(schema, quoted, spec);
    let columns = &spec.columns;
    let value = quote(&columns.value);
    let binary = quote(&sql::binary(&columns.value));
    let mut parts = vec![format!(
        "{} text collate \"C\" primary key",
        quote(&columns.key)
    )];
    match spec.value_type {
        ValueType::Auto => {
            parts.push(format!("{value} text"));
            parts.push(format!("{binary} bytea"));
            parts.push(format!("check (num_nonnulls({value}, {binary}) = 1)"));
        }
        ValueType::Text => parts.push(format!("{value} text not null")),
        ValueType::Bytes => parts.push(format!("{value} bytea not null")),
        ValueType::Json => parts.push(format!("{value} json not null")),
        ValueType::Jsonb => parts.push(format!("{value} jsonb not null")),
    }
    parts.push(format!("{} bigint not null", quote(&columns.version)));
    let expires_at = columns.expires_at.as_deref().map(quote);
    parts.extend(expires_at.iter().map(|name| format!("{name} timestamptz")));
    let updated_at = columns.updated_at.as_deref().map(quote);
    parts.extend(
        updated_at
            .iter()
            .map(|name| format!("{name} timestamptz not null default now()")),
    );
    let index = expires_at.map_or_else(String::new, |at| {
        format!("create index on {quoted} ({at}) where {at} is not null;")
    });
    let parts = parts.join(",\n    ");
    // Processes that start at once do this one after the other; the second one finds the table.
    alone(&format!(
        "do {work};",
        work = sql::dollar(&format!(
            "begin
                 if to_regclass({literal}) is null then
                     create table {quoted} (\n    {parts}\n);
                     {index}
                     {raise}
                 end if;
             end",
            literal = sql::literal(quoted),
        )),
    ))
}
