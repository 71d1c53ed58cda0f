//! A table as the catalogue has it: checked, quoted, with the statements that use it.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};
use tidegate_core::port::{StoreError, TableSpec, Timestamp, ValueType};
use tidegate_core::{Key, Version};

use super::error;

/// An open table.
pub(super) struct Table {
    pub(super) spec: TableSpec,
    /// Its name in the catalogue, under which versions of deleted keys are remembered.
    pub(super) name: String,
    values: Values,
    pub(super) expires: bool,
    pub(super) sql: Statements,
}

/// What the value column takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    /// Text as TEXT, the rest as BLOB.
    Auto,
    /// Text only.
    Text,
    /// All as BLOB.
    Bytes,
}

/// The statements of a table. `?1` is always the key where there is one.
pub(super) struct Statements {
    /// Always one row: version, end of life and whether there is a value, or nulls if there is no row; and
    /// the version remembered of the key. `?2` is the table's name.
    pub(super) look: String,
    /// Value, version and end of life of a live key; `?2` is now.
    pub(super) load: String,
    /// Value and end of life of a row, live or not.
    pub(super) present: String,
    /// A row that is not there: `?2` value, `?3` version, then the end of life and now, as far as the table
    /// has columns for them.
    pub(super) insert: String,
    /// A row that is there: the same.
    pub(super) update: String,
    pub(super) delete: String,
    /// Live rows with a text key: from `?1` on, and after it; `?2` is now, `?3` the limit.
    pub(super) scan_text: [String; 2],
    /// The same with a key that is no text.
    pub(super) scan_bytes: [String; 2],
    /// `?1` is now.
    pub(super) count: String,
    /// Keys and versions of expired rows; `?1` is now, `?2` the limit. Nothing if rows live for ever.
    pub(super) expired: Option<String>,
}

/// A name as it stands in a statement.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

struct Column {
    name: String,
    declared: String,
    required: bool,
    default: bool,
    /// 0 for an ordinary column; others are generated or hidden.
    hidden: i64,
}

impl Table {
    /// Finds the table, makes it if asked, and checks that it fits.
    pub(super) fn open(connection: &Connection, spec: &TableSpec) -> Result<Self, StoreError> {
        let wrong = |e: rusqlite::Error| error::configuration(&format!("table {}", spec.name), &e);
        self::check(spec)?;
        let found = find(connection, &spec.name).map_err(wrong)?;
        let (name, kind) = match found {
            Some(found) => found,
            None if spec.create => {
                let made = create(spec) + &raise(&spec.name, spec);
                connection.execute_batch(&made).map_err(wrong)?;
                (spec.name.clone(), "table".into())
            }
            None => {
                return Err(StoreError::configuration(format_args!(
                    "table {} does not exist",
                    spec.name
                )));
            }
        };
        if kind != "table" {
            return Err(StoreError::configuration(format_args!(
                "{} is a {kind} and not a table",
                spec.name
            )));
        }
        let columns = columns(connection, &name).map_err(wrong)?;
        let check = Check {
            connection,
            name: &name,
            columns: &columns,
        };
        let values = check.all(spec)?;
        if spec.trigger {
            let what = format!("table {name}: the trigger that raises versions");
            let wrong = |e: rusqlite::Error| error::configuration(&what, &e);
            connection
                .execute_batch(&raise(&name, spec))
                .map_err(wrong)?;
        }
        Ok(Self {
            sql: Statements::of(&name, spec),
            expires: spec.columns.expires_at.is_some(),
            values,
            name,
            spec: spec.clone(),
        })
    }

    /// The value as the table keeps it.
    pub(super) fn value<'a>(&self, value: &'a [u8]) -> Result<ToSqlOutput<'a>, StoreError> {
        let value = match (self.values, is_text(value)) {
            (Values::Auto | Values::Text, true) => ValueRef::Text(value),
            (Values::Auto, false) | (Values::Bytes, _) => ValueRef::Blob(value),
            (Values::Text, false) => {
                return Err(StoreError::refused(
                    None,
                    format_args!(
                        "column {} of table {} takes text without NUL only",
                        self.spec.columns.value, self.name
                    ),
                ));
            }
        };
        Ok(ToSqlOutput::Borrowed(value))
    }

    /// The end of life as the table keeps it.
    pub(super) fn expiry(&self, at: Option<Timestamp>) -> Result<Option<i64>, StoreError> {
        let Some(at) = at else {
            return Ok(None);
        };
        if !self.expires {
            return Err(StoreError::refused(
                None,
                format_args!("table {} has no column for the end of life", self.name),
            ));
        }
        let millis = i64::try_from(at.as_millis()).map_err(|_| {
            StoreError::refused(
                None,
                format_args!("the end of life is out of range for table {}", self.name),
            )
        })?;
        Ok(Some(millis))
    }
}

/// Text is kept as text, so that a person can read it; the same bytes are always kept the same way.
pub(super) fn key(key: &Key) -> ToSqlOutput<'_> {
    let bytes = key.as_bytes();
    ToSqlOutput::Borrowed(match is_text(bytes) {
        true => ValueRef::Text(bytes),
        false => ValueRef::Blob(bytes),
    })
}

/// The present as the table keeps it.
pub(super) fn millis(now: Timestamp) -> i64 {
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

fn names(spec: &TableSpec) -> impl Iterator<Item = &str> {
    let columns = &spec.columns;
    [&columns.key, &columns.value, &columns.version]
        .into_iter()
        .chain(&columns.expires_at)
        .chain(&columns.updated_at)
        .map(String::as_str)
}

/// Whether a table can be as it is asked for, as far as that is seen without the database.
pub(super) fn check(spec: &TableSpec) -> Result<(), StoreError> {
    check_names(spec)?;
    if spec.outbox {
        return Err(StoreError::configuration(format_args!(
            "table {}: a database of SQLite is for one node only and keeps no outbox",
            spec.name
        )));
    }
    Ok(())
}

fn check_names(spec: &TableSpec) -> Result<(), StoreError> {
    let wrong = |what: String| Err(StoreError::configuration(what));
    if spec.name.is_empty() || spec.name.contains('\0') {
        return wrong(format!("{:?} cannot be the name of a table", spec.name));
    }
    if spec.name.to_ascii_lowercase().starts_with("tidegate_") {
        return wrong(format!(
            "table {}: names with tidegate_ are the store's own",
            spec.name
        ));
    }
    let mut seen = Vec::new();
    for name in names(spec) {
        if name.is_empty() || name.contains('\0') {
            return wrong(format!(
                "table {}: {name:?} cannot be the name of a column",
                spec.name
            ));
        }
        let plain = name.to_ascii_lowercase();
        if seen.contains(&plain) {
            return wrong(format!(
                "table {}: column {name} is named for two things",
                spec.name
            ));
        }
        seen.push(plain);
    }
    Ok(())
}

/// The name and kind of a table; SQLite does not tell capitals in names.
fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<(String, String)>> {
    const FIND: &str = "select name, type from pragma_table_list
        where schema = 'main' and name = ?1 collate nocase";
    connection
        .query_row(FIND, [name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    const COLUMNS: &str = "select name, type, \"notnull\", dflt_value is not null, hidden from pragma_table_xinfo(?1)";
    let mut statement = connection.prepare(COLUMNS)?;
    let columns = statement.query_map([table], |row| {
        Ok(Column {
            name: row.get(0)?,
            declared: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
            required: row.get(2)?,
            default: row.get(3)?,
            hidden: row.get(4)?,
        })
    })?;
    columns.collect()
}

/// What a declared type does to values that are put in: SQLite's own rules, in their order.
fn affinity(declared: &str) -> &'static str {
    let declared = declared.to_ascii_uppercase();
    let has = |part| declared.contains(part);
    if has("INT") {
        "INTEGER"
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        "TEXT"
    } else if has("BLOB") || declared.is_empty() {
        "BLOB"
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        "REAL"
    } else {
        "NUMERIC"
    }
}

struct Check<'a> {
    connection: &'a Connection,
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
        let found = self
            .columns
            .iter()
            .find(|c| c.name.eq_ignore_ascii_case(name));
        let column = found.ok_or_else(|| self.wrong(name, "does not exist"))?;
        if column.hidden != 0 {
            return Err(self.wrong(name, "is generated and cannot be written"));
        }
        Ok(column)
    }

    fn all(&self, spec: &TableSpec) -> Result<Values, StoreError> {
        let columns = &spec.columns;
        let key = self.column(&columns.key)?;
        if !matches!(affinity(&key.declared), "TEXT" | "BLOB") {
            let what = format!("is {}: a key is kept in text or blob", key.declared);
            return Err(self.wrong(&columns.key, &what));
        }
        let unique = self.key_is_unique(&key.name);
        if !unique.map_err(|e| error::configuration(&format!("table {}", self.name), &e))? {
            let what = "is not unique: it must be alone in a primary key or in a full unique \
                        index that compares bytes";
            return Err(self.wrong(&columns.key, what));
        }
        let value = self.column(&columns.value)?;
        let values = match affinity(&value.declared) {
            "TEXT" => Values::Text,
            "BLOB" if value.declared.is_empty() => Values::Auto,
            "BLOB" => Values::Bytes,
            _ => {
                let what = format!("is {}: a value is kept in text or blob", value.declared);
                return Err(self.wrong(&columns.value, &what));
            }
        };
        let version = self.column(&columns.version)?;
        if affinity(&version.declared) != "INTEGER" {
            let what = format!("is {}: a version is kept in integer", version.declared);
            return Err(self.wrong(&columns.version, &what));
        }
        if !version.required {
            return Err(self.wrong(&columns.version, "may be null; it must be `not null`"));
        }
        for name in columns.expires_at.iter().chain(&columns.updated_at) {
            let time = self.column(name)?;
            if !matches!(affinity(&time.declared), "INTEGER" | "BLOB" | "NUMERIC") {
                let what = format!("is {}: a time is kept in integer", time.declared);
                return Err(self.wrong(name, &what));
            }
        }
        if let Some(name) = &columns.expires_at
            && self.column(name)?.required
        {
            return Err(self.wrong(
                name,
                "is `not null`, and a row that lives for ever has none",
            ));
        }
        let known = |c: &&Column| !names(spec).any(|name| c.name.eq_ignore_ascii_case(name));
        let in_the_way = |c: &&Column| c.hidden == 0 && c.required && !c.default;
        if let Some(column) = self.columns.iter().filter(known).find(in_the_way) {
            let what = "is `not null` without a default, and nothing would fill it";
            return Err(self.wrong(&column.name, what));
        }
        Ok(values)
    }

    fn key_is_unique(&self, key: &str) -> rusqlite::Result<bool> {
        // Unique indexes over all rows (not partial) ...
        const INDEXES: &str =
            "select name from pragma_index_list(?1) where \"unique\" and not partial";
        // ... whose only key column is the key, compared by its bytes.
        const COLUMNS: &str = "select name is ?2 and coll = 'BINARY'
            from pragma_index_xinfo(?1) where key order by seqno";
        let mut indexes = self.connection.prepare(INDEXES)?;
        let indexes = indexes.query_map([self.name], |row| row.get::<_, String>(0))?;
        for index in indexes {
            let mut columns = self.connection.prepare(COLUMNS)?;
            let columns = columns.query_map([index?.as_str(), key], |row| row.get::<_, bool>(0))?;
            let columns: Vec<bool> = columns.collect::<rusqlite::Result<_>>()?;
            if columns == [true] {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The statement that makes a table, and the index to sweep it by.
pub(super) fn create(spec: &TableSpec) -> String {
    let columns = &spec.columns;
    let value = quote(&columns.value);
    let value = match spec.value_type {
        ValueType::Auto => format!("{value} not null"),
        ValueType::Bytes => format!("{value} blob not null"),
        ValueType::Text => format!("{value} text not null"),
        ValueType::Json | ValueType::Jsonb => {
            format!("{value} text not null check (json_valid({value}))")
        }
    };
    let mut parts = vec![
        format!("{} not null primary key", quote(&columns.key)),
        value,
        format!("{} integer not null", quote(&columns.version)),
    ];
    let expires_at = columns.expires_at.as_deref().map(quote);
    parts.extend(expires_at.iter().map(|name| format!("{name} integer")));
    let updated_at = columns.updated_at.as_deref().map(quote);
    parts.extend(
        updated_at
            .iter()
            .map(|name| format!("{name} integer not null default 0")),
    );
    let table = quote(&spec.name);
    let parts = parts.join(",\n    ");
    let mut sql = format!("create table if not exists {table} (\n    {parts}\n) without rowid;");
    if let Some(expires_at) = expires_at {
        let index = quote(&format!("{}_expiry", spec.name));
        sql.push_str(&format!(
            "create index if not exists {index} on {table} ({expires_at}) where {expires_at} is not null;"
        ));
    }
    sql
}

/// The statement that makes the trigger, if it is missing: a row that is changed and keeps its version gets the
/// next odd one. What is written here always brings another version.
pub(super) fn raise(name: &str, spec: &TableSpec) -> String {
    let (table, trigger) = (quote(name), quote(&format!("{name}_raise")));
    let (key, version) = (quote(&spec.columns.key), quote(&spec.columns.version));
    format!(
        "create trigger if not exists {trigger} after update on {table}
         for each row when old.{version} is new.{version}
         begin
             update {table} set {version} = (max(new.{version}, 1) + 1) | 1 where {key} is new.{key};
         end;"
    )
}

impl Statements {
    fn of(name: &str, spec: &TableSpec) -> Self {
        let columns = &spec.columns;
        let table = quote(name);
        let (key, value) = (quote(&columns.key), quote(&columns.value));
        let version = quote(&columns.version);
        let expires = columns.expires_at.as_deref().map(quote);
        let expiry = expires.as_deref().unwrap_or("null");
        // A row without a value is as good as none; one whose life has ended is absent.
        let live = |now: &str| match &expires {
            Some(at) => format!("{value} is not null and ({at} is null or {at} > {now})"),
            None => format!("{value} is not null and {now} is not null"),
        };
        let mut names = vec![key.clone(), value.clone(), version.clone()];
        names.extend(expires.clone());
        names.extend(columns.updated_at.as_deref().map(quote));
        let places: Vec<_> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        let set = names.iter().zip(&places).skip(1);
        let set: Vec<_> = set
            .map(|(name, place)| format!("{name} = {place}"))
            .collect();
        let insert = format!(
            "insert into {table} ({}) values ({})",
            names.join(", "),
            places.join(", "),
        );
        let update = format!("update {table} set {} where {key} = ?1", set.join(", "));
        // Text sorts by its bytes and before every blob, so the empty blob stands between the two.
        let scan = |above: &str, end: &str| {
            format!(
                "select {key}, {value}, {version}, {expiry} from {table}
                 where {key} {above} ?1 {end} and {} order by {key} limit ?3",
                live("?2"),
            )
        };
        let text_end = format!("and {key} < x''");
        Self {
            look: format!(
                "select t.{version}, {}, t.{value} is not null, m.version from (select 1)
                 left join {table} as t on t.{key} = ?1
                 left join tidegate_tombstone as m on m.table_name = ?2 and m.key = ?1",
                expires
                    .as_ref()
                    .map_or("null".into(), |at| format!("t.{at}")),
            ),
            load: format!(
                "select {value}, {version}, {expiry} from {table} where {key} = ?1 and {}",
                live("?2"),
            ),
            present: format!("select {value}, {expiry} from {table} where {key} = ?1"),
            insert,
            update,
            delete: format!("delete from {table} where {key} = ?1"),
            scan_text: [scan(">=", &text_end), scan(">", &text_end)],
            scan_bytes: [scan(">=", ""), scan(">", "")],
            count: format!(
                "select count(*) from {table} where typeof({key}) in ('text', 'blob') and {}",
                live("?1"),
            ),
            expired: expires.map(|at| {
                format!(
                    "select {key}, {version} from {table}
                     where {at} <= ?1 and typeof({key}) in ('text', 'blob') limit ?2"
                )
            }),
        }
    }
}

/// The number in a column that others may have filled with something else: SQLite keeps any type in any column.
fn number(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(number) => Some(number),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole numbers, and the ends of the range"
        )]
        ValueRef::Real(number) => Some(number as i64),
        ValueRef::Null | ValueRef::Text(_) | ValueRef::Blob(_) => None,
    }
}

/// The version of a row. One that is no number is a row without a number.
pub(super) fn version(value: ValueRef<'_>) -> Version {
    Version::of_row(number(value).unwrap_or_default())
}

/// The end of life of a row. One that is no number is none, as the comparisons of SQLite have it too.
pub(super) fn end(value: ValueRef<'_>) -> Option<Timestamp> {
    number(value).map(|at| Timestamp::from_millis(u64::try_from(at).unwrap_or(0)))
}

/// Bytes of a key or value, however it is kept; text for numbers that others wrote.
pub(super) fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
        ValueRef::Null => Vec::new(),
    }
}
