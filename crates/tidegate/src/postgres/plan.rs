//! A batch, checked and sorted: per table, by key.

use std::sync::Arc;

use tidegate_core::port::{Batch, Guard, StoreError, TableId, Write};
use tidegate_core::{Change, Key, Version};
use tokio_postgres::types::ToSql;

use super::moment::Moment;
use super::table::{Keys, Table, Values};

/// The longest key taken, in bytes: with the name of its table it surely fits an index.
pub(super) const KEY_BYTES_MAX: usize = 2000;

/// The most bytes of keys and values that go out together. The server closes the connection over a message of a
/// gigabyte, which would look like a server that is away; a batch that is refused is halved by who sent it.
const BATCH_BYTES_MAX: usize = 512 << 20;

/// The tables of a batch with their writes, in an order that all processes keep.
pub(super) struct Plan<'a> {
    pub(super) batch: &'a Batch,
    pub(super) groups: Vec<Group<'a>>,
}

/// The writes of one table.
pub(super) struct Group<'a> {
    pub(super) table: &'a Table,
    /// With their places in the batch, sorted by key.
    pub(super) writes: Vec<(usize, &'a Write)>,
}

/// How the writes of a table can be put in one statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Always,
    IfNewer,
    Flush,
}

/// A parameter that is an array.
pub(super) type Array<'a> = Box<dyn ToSql + Sync + Send + 'a>;

impl<'a> Plan<'a> {
    /// Refuses what no statement could carry, by the index of the write.
    pub(super) fn new(tables: &'a [Arc<Table>], batch: &'a Batch) -> Result<Self, StoreError> {
        let mut sorted: Vec<(usize, &Write)> = batch.writes.iter().enumerate().collect();
        for (item, write) in &sorted {
            let Some(table) = tables.get(usize::from(write.table.0)) else {
                return Err(StoreError::refused_item(*item, "no such table"));
            };
            check(table, write).map_err(|what| StoreError::refused_item(*item, what))?;
        }
        let bytes =
            |write: &Write| write.key.as_bytes().len() + write.value().map_or(0, |v| v.len());
        if batch.writes.len() > 1 && batch.writes.iter().map(bytes).sum::<usize>() > BATCH_BYTES_MAX
        {
            return Err(StoreError::refused(None, "too many bytes for one batch"));
        }
        let table = |id: TableId| &*tables[usize::from(id.0)];
        let name = |write: &Write| table(write.table).lock;
        sorted.sort_unstable_by(|(_, a), (_, b)| (name(a), &a.key).cmp(&(name(b), &b.key)));
        let groups = sorted.chunk_by(|(_, a), (_, b)| a.table == b.table);
        let groups = groups.map(|writes| Group {
            table: table(writes[0].1.table),
            writes: writes.to_vec(),
        });
        Ok(Self {
            batch,
            groups: groups.collect(),
        })
    }
}

impl Group<'_> {
    /// Whether its plain way writes versions that came with it.
    pub(super) fn brings_versions(&self) -> bool {
        matches!(self.plain(), Some(Plain::IfNewer | Plain::Flush))
    }

    /// Whether it is all puts of one guard.
    pub(super) fn plain(&self) -> Option<Plain> {
        let kind = |(_, write): &(usize, &Write)| match (&write.change, write.guard) {
            (Change::Put { .. }, Guard::Always) => Some(Plain::Always),
            // No version is newer than nothing, not even where there is no row.
            (Change::Put { .. }, Guard::IfNewer(v)) if v > Version::NONE => Some(Plain::IfNewer),
            // One that is not newer than its base is a conflict at best.
            (Change::Put { .. }, Guard::Flush { base, version })
                if version > base.unwrap_or_default() =>
            {
                Some(Plain::Flush)
            }
            _ => None,
        };
        let first = self.writes.first().and_then(kind)?;
        self.writes
            .iter()
            .all(|write| kind(write) == Some(first))
            .then_some(first)
    }
}

/// Whether the columns of a table can hold a write; what they cannot hold, in words.
pub(super) fn check(table: &Table, write: &Write) -> Result<(), String> {
    let columns = &table.spec.columns;
    let key = write.key.as_bytes();
    if key.len() > KEY_BYTES_MAX {
        return Err(format!(
            "column {} of table {} is indexed and takes keys of at most {KEY_BYTES_MAX} bytes",
            columns.key, table.name
        ));
    }
    if table.keys == Keys::Text && text(key).is_none() {
        return Err(format!(
            "column {} of table {} takes text without NUL only",
            columns.key, table.name
        ));
    }
    too_long(table, &columns.key, key, table.key_chars_max)?;
    if let Some(version) = write.guard.version()
        && i64::try_from(version.raw()).is_err()
    {
        return Err("the version is out of range".into());
    }
    let Change::Put { value, expires_at } = &write.change else {
        return Ok(());
    };
    let textual = matches!(table.values, Values::Text | Values::Json | Values::Jsonb);
    if textual && text(value).is_none() {
        return Err(format!(
            "column {} of table {} takes text without NUL only",
            columns.value, table.name
        ));
    }
    too_long(table, &columns.value, value, table.value_chars_max)?;
    match (expires_at, &columns.expires_at) {
        (Some(_), None) => Err(format!(
            "table {} has no column for the end of life",
            table.name
        )),
        (Some(at), Some(name)) if Moment::exact(*at).is_none() => Err(format!(
            "the end of life is out of range for column {name} of table {}",
            table.name
        )),
        _ => Ok(()),
    }
}

/// Refuses what is longer than its column. PostgreSQL does so too, but cuts spaces at the end in place of it.
fn too_long(table: &Table, column: &str, bytes: &[u8], max: Option<usize>) -> Result<(), String> {
    match (max, text(bytes)) {
        (Some(max), Some(text)) if text.chars().count() > max => Err(format!(
            "column {column} of table {} takes at most {max} characters",
            table.name
        )),
        _ => Ok(()),
    }
}

/// The bytes as PostgreSQL takes text.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// Keys as the table has them. What it cannot have is left out: the caller has checked, or it is absent.
pub(super) fn keys<'a>(table: &Table, keys: impl Iterator<Item = &'a Key>) -> Array<'a> {
    match table.keys {
        Keys::Text => Box::new(
            keys.filter_map(|key| text(key.as_bytes()))
                .collect::<Vec<_>>(),
        ),
        Keys::Bytes => Box::new(keys.map(Key::as_bytes).collect::<Vec<_>>()),
    }
}

/// Keys as they are remembered when deleted.
pub(super) fn key_bytes<'a>(writes: impl Iterator<Item = &'a Write>) -> Array<'a> {
    Box::new(writes.map(|write| write.key.as_bytes()).collect::<Vec<_>>())
}

/// The arrays of puts, as the statements want them: keys, values, ends of life.
pub(super) fn puts<'a>(table: &Table, writes: &[&'a Write]) -> Vec<Array<'a>> {
    let mut arrays = vec![keys(table, writes.iter().map(|write| &write.key))];
    let values = || {
        writes
            .iter()
            .filter_map(|write| write.value())
            .map(|value| &**value)
    };
    match table.values {
        Values::Auto => {
            let texts: Vec<Option<&str>> = values().map(text).collect();
            let bytes: Vec<Option<&[u8]>> = values()
                .zip(&texts)
                .map(|(value, text)| text.is_none().then_some(value))
                .collect();
            arrays.push(Box::new(texts));
            arrays.push(Box::new(bytes));
        }
        Values::Bytes => arrays.push(Box::new(values().collect::<Vec<_>>())),
        // Checked to be text when the plan was made.
        Values::Text | Values::Json | Values::Jsonb => {
            arrays.push(Box::new(values().map(text).collect::<Vec<_>>()));
        }
    }
    if table.spec.columns.expires_at.is_some() {
        let ends = writes
            .iter()
            .map(|write| write.expires_at().and_then(Moment::exact));
        arrays.push(Box::new(ends.collect::<Vec<Option<Moment>>>()));
    }
    arrays
}

/// What flushes were made over: nothing where that was not looked at, and less than any version for an absent
/// key, which no row has.
pub(super) fn bases(writes: &[&Write]) -> Array<'static> {
    let base = |write: &&Write| match write.guard {
        Guard::Flush { base, .. } => base.map(|base| match base {
            Version::NONE => -1,
            base => base.raw().cast_signed(),
        }),
        Guard::Always | Guard::Unchanged(_) | Guard::IfNewer(_) | Guard::Once { .. } => None,
    };
    Box::new(writes.iter().map(base).collect::<Vec<Option<i64>>>())
}

/// Versions as numbers.
pub(super) fn versions<'a>(versions: impl Iterator<Item = Version>) -> Array<'a> {
    Box::new(
        versions
            .map(|version| version.raw().cast_signed())
            .collect::<Vec<i64>>(),
    )
}
