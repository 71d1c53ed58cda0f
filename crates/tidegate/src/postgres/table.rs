//! A table as the catalogue has it, checked.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32};

use tidegate_core::port::{StoreError, TableSpec};
use tokio_postgres::{Client, Row};

use super::ddl::{self, RAISE};
use super::error;
use super::outside;
use super::sql::{self, Shape, Statements, quote};
use super::support::Support;

/// An open table.
pub(super) struct Table {
    pub(super) spec: TableSpec,
    /// `schema.table`, under which versions of deleted keys are remembered.
    pub(super) name: String,
    /// The number of the table in the catalogue, as the second number of its advisory lock.
    pub(super) lock: i32,
    pub(super) keys: Keys,
    pub(super) values: Values,
    /// The most characters of a key, where its column has a length.
    pub(super) key_chars_max: Option<usize>,
    /// The most characters of a value, likewise.
    pub(super) value_chars_max: Option<usize>,
    pub(super) sql: Statements,
    /// The last batch of puts that went the plain way made new rows.
    pub(super) grows: AtomicBool,
    /// For so many batches one trip is not tried, because it was in vain.
    pub(super) plain_batches: AtomicU32,
}

/// The type of the key column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keys {
    Text,
    Bytes,
}

impl Keys {
    /// The key in a column of a row.
    pub(super) fn of(self, row: &Row, column: usize) -> &[u8] {
        match self {
            Self::Text => row.get::<_, &str>(column).as_bytes(),
            Self::Bytes => row.get(column),
        }
    }
}

/// The type of the value column, or columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Values {
    /// Text, with a column of bytes beside it.
    Auto,
    Text,
    Bytes,
    Json,
    Jsonb,
}

/// The longest name PostgreSQL keeps whole, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 63;

struct Column {
    name: String,
    number: i16,
    kind: String,
    /// The type as it was declared, for messages.
    shown: String,
    required: bool,
    filled: bool,
    generated: bool,
    sorted_by_bytes: bool,
    equal_by_bytes: bool,
    /// Characters of a `varchar`, digits of the second of a `timestamptz`; where they are declared.
    size: Option<usize>,
}

impl Table {
    /// Finds the table, makes it if asked, and checks that it fits.
    pub(super) async fn open(
        client: &Client,
        support: &Support,
        spec: &TableSpec,
    ) -> Result<Self, StoreError> {
        let wrong =
            |e: tokio_postgres::Error| error::configuration(&format!("table {}", spec.name), &e);
        check_names(spec)?;
        let quoted = ddl::quoted(&spec.name);
        let mut found = find(client, &quoted).await.map_err(wrong)?;
        if found.is_none() && spec.create {
            let schema = spec.name.split_once('.').map(|names| names.0);
            let sql = ddl::create(schema, &quoted, spec);
            transaction(client, &sql).await.map_err(wrong)?;
            found = find(client, &quoted).await.map_err(wrong)?;
        }
        let Some(row) = found else {
            return Err(StoreError::configuration(format_args!(
                "table {} does not exist",
                spec.name
            )));
        };
        let (oid, schema, table): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        let name = format!("{schema}.{table}");
        let refuse = |what: fmt::Arguments<'_>| {
            Err(StoreError::configuration(format_args!(
                "table {name} {what}"
            )))
        };
        match row.get::<_, &str>(3) {
            "r" => {}
            "p" => return refuse(format_args!("is partitioned, which is not supported")),
            "v" | "m" => return refuse(format_args!("is a view and not a table")),
            _ => return refuse(format_args!("is not an ordinary table")),
        }
        if row.get(4) {
            return refuse(format_args!("is temporary"));
        }
        if let Some(missing) = row.get::<_, Option<String>>(5) {
            return refuse(format_args!(
                "may not be used by this user, who lacks: {missing}"
            ));
        }
        let columns = columns(client, oid).await.map_err(wrong)?;
        let check = Check {
            name: &name,
            columns: &columns,
        };
        let (key, value, values) = check.all(spec)?;
        if !is_unique(client, oid, key.number).await.map_err(wrong)? {
            let what = "is not unique: it must be alone in a primary key, or in a unique constraint \
                        or index over all rows that is not deferrable";
            return Err(check.wrong(&spec.columns.key, what));
        }
        let keys = match key.kind.as_str() {
            "bytea" => Keys::Bytes,
            _ => Keys::Text,
        };
        let quoted = format!("{}.{}", quote(&schema), quote(&table));
        if spec.trigger && !is_raised(client, oid).await.map_err(wrong)? {
            let what = format!(
                "table {name}: the trigger that raises the version of rows changed in SQL cannot be made \
                 (it needs TRIGGER on the table, and CREATE on its schema for a function)"
            );
            // Another process may have made it meanwhile.
            let made = transaction(client, &ddl::raise_missing(Some(&schema), &quoted, spec)).await;
            made.map_err(|e| error::configuration(&what, &e))?;
        }
        if spec.outbox && !outside::is_watched(client, oid).await.map_err(wrong)? {
            let what = format!(
                "table {name}: the triggers that note what others change cannot be made (it needs TRIGGER on the \
                 table, and CREATE on the schema of the store's own tables for a function)"
            );
            let made = transaction(client, &ddl::watch(support, &quoted, spec)).await;
            made.map_err(|e| error::configuration(&what, &e))?;
        }
        let shape = Shape {
            table: quoted,
            columns: &spec.columns,
            keys,
            values,
            sorted_by_bytes: key.sorted_by_bytes,
            name: &name,
            lock: oid.cast_signed(),
        };
        Ok(Self {
            sql: Statements::of(&shape, support),
            lock: oid.cast_signed(),
            spec: spec.clone(),
            keys,
            values,
            key_chars_max: key.size,
            value_chars_max: value.size,
            name,
            grows: AtomicBool::new(true),
            plain_batches: AtomicU32::new(0),
        })
    }
}

fn names(spec: &TableSpec) -> impl Iterator<Item = &str> {
    let columns = &spec.columns;
    [&columns.key, &columns.value, &columns.version]
        .into_iter()
        .chain(&columns.expires_at)
        .chain(&columns.updated_at)
        .map(String::as_str)
}

pub(super) fn check_names(spec: &TableSpec) -> Result<(), StoreError> {
    let fits =
        |name: &str| !name.is_empty() && !name.contains('\0') && name.len() <= NAME_BYTES_MAX;
    let table = spec
        .name
        .split_once('.')
        .map_or(spec.name.as_str(), |names| names.1);
    let schema = spec.name.split_once('.').map_or("public", |names| names.0);
    let refuse = |what: String| Err(StoreError::configuration(what));
    if !fits(table) || !fits(schema) {
        return refuse(format!(
            "{:?} cannot be the name of a table: each part has 1 to {NAME_BYTES_MAX} bytes",
            spec.name
        ));
    }
    if table.starts_with("tidegate_") {
        return refuse(format!(
            "table {}: names with tidegate_ are the store's own",
            spec.name
        ));
    }
    let mut seen = Vec::new();
    for name in names(spec) {
        if !fits(name) {
            return refuse(format!(
                "table {}: {name:?} cannot be the name of a column: it has 1 to {NAME_BYTES_MAX} bytes",
                spec.name
            ));
        }
        if seen.contains(&name) {
            return refuse(format!(
                "table {}: column {name} is named for two things",
                spec.name
            ));
        }
        seen.push(name);
    }
    Ok(())
}

/// The table that a name means here, its kind, and the privileges that are missing.
async fn find(client: &Client, quoted: &str) -> Result<Option<Row>, tokio_postgres::Error> {
    const FIND: &str = "select c.oid, n.nspname::text, c.relname::text, c.relkind::text,
            c.relpersistence = 't',
            (select string_agg(p, ', ') from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as p
             where not has_table_privilege(c.oid, p))
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where c.oid = to_regclass($1)";
    client.query_opt(FIND, &[&quoted]).await
}

async fn columns(client: &Client, oid: u32) -> Result<Vec<Column>, tokio_postgres::Error> {
    // Without dropped ones and those of the system.
    const COLUMNS: &str = "select a.attname::text, a.attnum,
            case when n.nspname = 'pg_catalog' then t.typname::text else '' end,
            format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.atthasdef or a.attidentity <> '', a.attgenerated <> '' or a.attidentity = 'a',
            coalesce(c.collname in ('C', 'POSIX', 'ucs_basic'), a.attcollation = 0),
            coalesce(c.collisdeterministic, true),
            case when a.atttypmod < 0 then null
                when t.typname = 'varchar' then a.atttypmod - 4
                when t.typname = 'timestamptz' then a.atttypmod end
        from pg_attribute as a
        join pg_type as t on t.oid = a.atttypid
        join pg_namespace as n on n.oid = t.typnamespace
        left join pg_collation as c on c.oid = a.attcollation
        where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
        order by a.attnum";
    let rows = client.query(COLUMNS, &[&oid]).await?;
    let column = |row: &Row| Column {
        name: row.get(0),
        number: row.get(1),
        kind: row.get(2),
        shown: row.get(3),
        required: row.get(4),
        filled: row.get(5),
        generated: row.get(6),
        sorted_by_bytes: row.get(7),
        equal_by_bytes: row.get(8),
        size: row
            .get::<_, Option<i32>>(9)
            .and_then(|size| usize::try_from(size).ok()),
    };
    Ok(rows.iter().map(column).collect())
}

async fn is_unique(client: &Client, oid: u32, column: i16) -> Result<bool, tokio_postgres::Error> {
    // A unique index that is checked at once, over all rows, of this column and no other.
    const UNIQUE: &str = "select exists (
        select from pg_index
        where indrelid = $1 and indisunique and indisvalid and indimmediate
        and indpred is null and indexprs is null
        and indnkeyatts = 1 and indkey[0] = $2)";
    Ok(client.query_one(UNIQUE, &[&oid, &column]).await?.get(0))
}

struct Check<'a> {
    name: &'a str,
    columns: &'a [Column],
}

impl Check<'_> {
    fn wrong(&self, column: &str, what: &str) -> StoreError {
        StoreError::configuration(format_args!(
            "column {column} of table {} {what}",
            self.name
        ))
    }

    fn column(&self, name: &str) -> Result<&Column, StoreError> {
        let column = self.columns.iter().find(|column| column.name == name);
        let column = column.ok_or_else(|| self.wrong(name, "does not exist"))?;
        if column.generated {
            return Err(self.wrong(name, "is generated and cannot be written"));
        }
        Ok(column)
    }

    /// The column if it has one of these types.
    fn typed(&self, name: &str, wanted: &[&str]) -> Result<&Column, StoreError> {
        let column = self.column(name)?;
        if !wanted.contains(&column.kind.as_str()) {
            let what = format!("is {} and must be {}", column.shown, wanted.join(" or "));
            return Err(self.wrong(name, &what));
        }
        Ok(column)
    }

    fn all(&self, spec: &TableSpec) -> Result<(&Column, &Column, Values), StoreError> {
        let columns = &spec.columns;
        let key = self.typed(&columns.key, &["text", "varchar", "bytea"])?;
        if !key.equal_by_bytes {
            let what = "has a collation in which different keys may be equal";
            return Err(self.wrong(&columns.key, what));
        }
        let wanted = ["text", "varchar", "bytea", "json", "jsonb"];
        let value = self.typed(&columns.value, &wanted)?;
        let beside = sql::binary(&columns.value);
        let has_beside = self
            .columns
            .iter()
            .any(|c| c.name == beside && c.kind == "bytea" && !c.required && !c.generated);
        let values = match value.kind.as_str() {
            "text" if has_beside && !value.required => Values::Auto,
            "bytea" => Values::Bytes,
            "json" => Values::Json,
            "jsonb" => Values::Jsonb,
            _ => Values::Text,
        };
        let version = self.typed(&columns.version, &["int8"])?;
        if !version.required {
            return Err(self.wrong(&columns.version, "may be null; it must be `not null`"));
        }
        for name in columns.expires_at.iter().chain(&columns.updated_at) {
            self.typed(name, &["timestamptz"])?;
        }
        if let Some(name) = &columns.expires_at
            && self.column(name)?.size.is_some_and(|digits| digits < 3)
        {
            let what =
                "rounds to more than a millisecond; it must have at least 3 digits of the second";
            return Err(self.wrong(name, what));
        }
        if let Some(name) = &columns.expires_at
            && self.column(name)?.required
        {
            return Err(self.wrong(
                name,
                "is `not null`, and a row that lives for ever has none",
            ));
        }
        let unknown = |column: &&Column| !names(spec).any(|name| name == column.name);
        let in_the_way = |column: &&Column| column.required && !column.filled;
        if let Some(column) = self.columns.iter().filter(unknown).find(in_the_way) {
            let what = "is `not null` without a default, and nothing would fill it";
            return Err(self.wrong(&column.name, what));
        }
        Ok((key, value, values))
    }
}

/// Statements that begin and end a transaction themselves.
async fn transaction(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    let done = client.batch_execute(sql).await;
    if done.is_err() {
        let _ = client.batch_execute("rollback").await;
    }
    done
}

/// Whether the table has the trigger and it is on.
async fn is_raised(client: &Client, oid: u32) -> Result<bool, tokio_postgres::Error> {
    const RAISED: &str = "select exists (
        select from pg_trigger where tgrelid = $1 and tgname = $2 and tgenabled in ('O', 'A'))";
    Ok(client.query_one(RAISED, &[&oid, &RAISE]).await?.get(0))
}
