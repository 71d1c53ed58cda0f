//! The classes as they are meant: each sound in itself, and all of them together.

use tidegate::port::{TableSpec, ValueType};
use tidegate::{Class, Level, Pattern, Strategy};

use super::level;
use super::meant_write_back::mean_write_back;
use super::section::{At, Sheet};
use super::written::{WrittenClass, WrittenColumns};

/// The name of the class that has every key no other class names, and its keys.
const DEFAULT: (&str, &str) = ("default", "*");

/// Reports what is refused in a class under the path of its key.
pub(super) struct Refusals<'a> {
    sheet: &'a Sheet,
    /// Whether the file has a shared cache, without which some keys do nothing.
    pub(super) is_shared: bool,
}

impl<'a> Refusals<'a> {
    pub(super) fn new(sheet: &'a Sheet, is_shared: bool) -> Self {
        Self { sheet, is_shared }
    }

    pub(super) fn refuse(
        &self,
        class: &WrittenClass,
        key: &str,
        line: usize,
        why: impl Into<String>,
    ) {
        self.sheet
            .report(line, format!("{}.{key}", class.path), why);
    }
}

/// The classes of a file, in its order.
pub(super) fn mean_classes(written: Vec<WrittenClass>, refusals: &Refusals<'_>) -> Vec<Class> {
    let mut classes: Vec<(Class, &WrittenClass)> = Vec::new();
    for one in &written {
        let Some(class) = mean_class(one, refusals) else {
            continue;
        };
        refuse_doubles(&class, one, &classes, refusals);
        classes.push((class, one));
    }
    refuse_table_of_default(&classes, refusals);
    classes.into_iter().map(|(class, _)| class).collect()
}

/// One class, or nothing if it lacks what everything else hangs on.
fn mean_class(written: &WrittenClass, refusals: &Refusals<'_>) -> Option<Class> {
    let refuse = |key: &str, line: usize, why: &str| refusals.refuse(written, key, line, why);
    let Some(name) = &written.name else {
        refuse("name", written.line, "is missing; every class has a name");
        return None;
    };
    let is_word = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if !is_word(&name.value) {
        refuse("name", name.line, "must be letters, digits, '_' and '-'");
        return None;
    }
    let keys = mean_keys(written, name, refusals)?;
    let mut class = if name.value == DEFAULT.0 {
        Class::default_class()
    } else {
        Class::new(name.value.clone(), keys)
    };
    if let Some(strategy) = &written.strategy {
        match strategy.value.parse::<Strategy>() {
            Ok(meant) => class.strategy = meant,
            Err(_) => {
                let names = Strategy::ALL.map(Strategy::as_str);
                refuse("strategy", strategy.line, &none_of(&strategy.value, &names));
                return None;
            }
        }
    }
    mean_reads(written, &mut class, refusals);
    mean_level(written, &mut class, refusals);
    mean_write_back(written, &mut class, refusals);
    mean_table(written, &mut class, refusals);
    Some(class)
}

fn mean_keys<'a>(
    written: &'a WrittenClass,
    name: &At<String>,
    refusals: &Refusals<'_>,
) -> Option<&'a str> {
    let is_default = name.value == DEFAULT.0;
    match &written.keys {
        None if is_default => Some(DEFAULT.1),
        None => {
            let example = format!("is missing; write a pattern such as \"{}:*\"", name.value);
            refusals.refuse(written, "keys", written.line, example);
            None
        }
        Some(keys) if is_default && keys.value != DEFAULT.1 => {
            let why = "the class 'default' has every key that no other class names; leave this out";
            refusals.refuse(written, "keys", keys.line, why);
            None
        }
        Some(keys) if !is_default && keys.value.bytes().all(|b| b == b'*') => {
            let why = if keys.value.is_empty() {
                "is empty; write a pattern such as \"session:*\""
            } else {
                "only the class 'default' may have every key; name this one \"default\""
            };
            refusals.refuse(written, "keys", keys.line, why);
            None
        }
        Some(keys) => Some(&keys.value),
    }
}

/// What concerns reads and cached copies.
fn mean_reads(written: &WrittenClass, class: &mut Class, refusals: &Refusals<'_>) {
    let refuse = |key: &str, line: usize, why: &str| refusals.refuse(written, key, line, why);
    if let Some(ttl) = &written.ttl {
        if ttl.value.is_zero() {
            refuse(
                "ttl",
                ttl.line,
                "must not be zero; leave it out for copies without an end",
            );
        }
        class.ttl = Some(ttl.value);
    }
    if let Some(jitter) = &written.ttl_jitter {
        if !(0.0..=1.0).contains(&jitter.value) {
            refuse("ttl_jitter", jitter.line, "must be between 0 and 1");
        } else if written.ttl.is_none() {
            refuse("ttl_jitter", jitter.line, "does nothing without a ttl");
        }
        class.ttl_jitter = jitter.value;
    }
    if class.strategy == Strategy::CacheOnly {
        let of_loads = [
            ("negative_ttl", &written.negative_ttl),
            ("stale_if_error", &written.stale_if_error),
            ("load_timeout", &written.load_timeout),
        ];
        for (key, at) in of_loads {
            if let Some(at) = at {
                refuse(
                    key,
                    at.line,
                    "does nothing in a cache-only class, which has no store to read",
                );
            }
        }
        return;
    }
    if let Some(negative) = &written.negative_ttl {
        class.negative_ttl = negative.value;
    }
    if let Some(stale) = &written.stale_if_error {
        if written.ttl.is_none() {
            refuse("stale_if_error", stale.line, "does nothing without a ttl");
        }
        class.stale_if_error = stale.value;
    }
    if let Some(timeout) = &written.load_timeout {
        if timeout.value.is_zero() {
            refuse("load_timeout", timeout.line, "must not be zero");
        }
        class.load_timeout = timeout.value;
    }
}

/// How fresh reads are where several nodes share a cache.
fn mean_level(written: &WrittenClass, class: &mut Class, refusals: &Refusals<'_>) {
    let Some(level) = &written.level else { return };
    let refuse = |why: &str| refusals.refuse(written, "level", level.line, why);
    if !refusals.is_shared {
        refuse("does nothing without [shared]: one node reads what it wrote");
    } else if class.strategy == Strategy::CacheOnly {
        refuse("does nothing in a cache-only class, of which every node has its own");
    }
    match level::parse(&level.value) {
        Ok(meant) => class.level = meant,
        Err(why) => refuse(&why),
    }
    if class.level == Level::Eventual && written.ttl.is_none() {
        refuse("\"eventual\" needs a ttl, which is how old a read may be");
    }
}

/// What concerns the table in the store.
fn mean_table(written: &WrittenClass, class: &mut Class, refusals: &Refusals<'_>) {
    let refuse = |key: &str, line: usize, why: &str| refusals.refuse(written, key, line, why);
    if class.strategy == Strategy::CacheOnly {
        let given = [
            ("table", written.table.as_ref().map(|at| at.line)),
            (
                "create_table",
                written.create_table.as_ref().map(|at| at.line),
            ),
            ("trigger", written.trigger.as_ref().map(|at| at.line)),
            ("outbox", written.outbox.as_ref().map(|at| at.line)),
            ("value_type", written.value_type.as_ref().map(|at| at.line)),
            (
                "columns",
                written.columns.as_ref().map(|columns| columns.line),
            ),
        ];
        for (key, line) in given {
            if let Some(line) = line {
                refuse(
                    key,
                    line,
                    "does nothing in a cache-only class, which has no table",
                );
            }
        }
        return;
    }
    if let Some(table) = &written.table {
        if table.value.is_empty() || table.value.contains('\0') {
            refuse("table", table.line, "must name a table");
        }
        class.table.name.clone_from(&table.value);
    }
    if is_reserved(&class.table.name) {
        let (key, line) = match (&written.table, &written.name) {
            (Some(table), _) => ("table", table.line),
            (None, Some(name)) => ("name", name.line),
            (None, None) => ("name", written.line),
        };
        let why = format!(
            "'{}' is a table that tidegate keeps for itself; name another with the key table",
            class.table.name.escape_default()
        );
        refuse(key, line, &why);
    }
    if let Some(create) = &written.create_table {
        class.table.create = create.value;
    }
    if let Some(trigger) = &written.trigger {
        class.table.trigger = trigger.value;
    }
    if let Some(outbox) = &written.outbox {
        if outbox.value && !refusals.is_shared {
            let why = "is for a cache that several nodes share: write [shared], or leave this out";
            refuse("outbox", outbox.line, why);
        }
        class.table.outbox = outbox.value;
    }
    if let Some(value_type) = &written.value_type {
        match VALUE_TYPES
            .iter()
            .find(|(name, _)| *name == value_type.value)
        {
            Some((_, meant)) => class.table.value_type = *meant,
            None => {
                let names = VALUE_TYPES.map(|(name, _)| name);
                refuse(
                    "value_type",
                    value_type.line,
                    &none_of(&value_type.value, &names),
                );
            }
        }
        if written
            .create_table
            .as_ref()
            .is_some_and(|create| !create.value)
        {
            let why = "contradicts create_table = false: an existing table has its own types";
            refuse("value_type", value_type.line, why);
        }
    }
    if let Some(columns) = &written.columns {
        mean_columns(columns, written, &mut class.table, refusals);
    }
}

/// What the stores keep beside the tables of classes.
const RESERVED_TABLES: [&str; 4] = [
    "tidegate_meta",
    "tidegate_session",
    "tidegate_tombstone",
    "tidegate_version",
];

/// Whether a table is the store's own. Capitals are no difference to some stores, so they are none here.
fn is_reserved(table: &str) -> bool {
    RESERVED_TABLES
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(table))
}

const VALUE_TYPES: [(&str, ValueType); 5] = [
    ("auto", ValueType::Auto),
    ("text", ValueType::Text),
    ("bytes", ValueType::Bytes),
    ("json", ValueType::Json),
    ("jsonb", ValueType::Jsonb),
];

fn mean_columns(
    columns: &WrittenColumns,
    written: &WrittenClass,
    table: &mut TableSpec,
    refusals: &Refusals<'_>,
) {
    let meant = &mut table.columns;
    let must = [
        (&columns.key, &mut meant.key),
        (&columns.value, &mut meant.value),
        (&columns.version, &mut meant.version),
    ];
    for (at, column) in must {
        if let Some(at) = at {
            column.clone_from(&at.value);
        }
    }
    let may = [
        (&columns.expires_at, &mut meant.expires_at),
        (&columns.updated_at, &mut meant.updated_at),
    ];
    for (at, column) in may {
        if let Some(at) = at {
            column.clone_from(&at.value.0);
        }
    }
    let named = [
        (
            "columns.key",
            Some(&meant.key),
            columns.key.as_ref().map(|at| at.line),
        ),
        (
            "columns.value",
            Some(&meant.value),
            columns.value.as_ref().map(|at| at.line),
        ),
        (
            "columns.version",
            Some(&meant.version),
            columns.version.as_ref().map(|at| at.line),
        ),
        (
            "columns.expires_at",
            meant.expires_at.as_ref(),
            columns.expires_at.as_ref().map(|at| at.line),
        ),
        (
            "columns.updated_at",
            meant.updated_at.as_ref(),
            columns.updated_at.as_ref().map(|at| at.line),
        ),
    ];
    for (at, (key, column, line)) in named.iter().enumerate() {
        let Some(column) = column else { continue };
        let line = line.unwrap_or(columns.line);
        if column.is_empty() {
            refusals.refuse(written, key, line, "must name a column");
        }
        let double = named[..at]
            .iter()
            .find(|(_, other, _)| other.is_some_and(|o| o == *column));
        if let Some((other, ..)) = double {
            let why = format!(
                "is the same column as {other}, '{}'",
                column.escape_default()
            );
            refusals.refuse(written, key, line, why);
        }
    }
}

/// Refuses two classes of one name, of the same keys, or of one table that they see differently.
fn refuse_doubles(
    class: &Class,
    written: &WrittenClass,
    earlier: &[(Class, &WrittenClass)],
    refusals: &Refusals<'_>,
) {
    for (other, other_written) in earlier {
        if other.name == class.name {
            let line = written.name.as_ref().map_or(written.line, |at| at.line);
            let why = format!(
                "class '{}' stands in line {} already",
                class.name, other_written.line
            );
            refusals.refuse(written, "name", line, why);
        } else if other.keys == class.keys {
            let line = written.keys.as_ref().map_or(written.line, |at| at.line);
            let why = format!("class '{}' has the same keys '{}'", other.name, class.keys);
            refusals.refuse(written, "keys", line, why);
        }
        if shares_table(other, class) && other.table != class.table {
            let line = written.table.as_ref().map_or(written.line, |at| at.line);
            let why = format!(
                "class '{}' has the same table '{}' with other columns, value_type, create_table, trigger or outbox",
                other.name, class.table.name
            );
            refusals.refuse(written, "table", line, why);
        }
    }
}

/// The class `default` is there even if it is not written, and has a table.
fn refuse_table_of_default(classes: &[(Class, &WrittenClass)], refusals: &Refusals<'_>) {
    if classes.iter().any(|(class, _)| class.name == DEFAULT.0) {
        return;
    }
    let default = Class::default_class();
    for (class, written) in classes {
        if shares_table(&default, class) && default.table != class.table {
            let line = written.table.as_ref().map_or(written.line, |at| at.line);
            let why = format!(
                "'{}' is the table of the class 'default', with other columns, value_type, create_table, trigger or outbox; \
                 give the class 'default' another table",
                class.table.name
            );
            refusals.refuse(written, "table", line, why);
        }
    }
}

fn shares_table(a: &Class, b: &Class) -> bool {
    a.strategy != Strategy::CacheOnly
        && b.strategy != Strategy::CacheOnly
        && a.table.name == b.table.name
}

pub(super) fn none_of(given: &str, names: &[&str]) -> String {
    format!(
        "'{}' is none of {}",
        given.escape_default(),
        names.join(", ")
    )
}

/// The keys of a class as people read them.
pub(crate) fn shown_keys(keys: &Pattern) -> String {
    keys.as_str().escape_debug().to_string()
}
