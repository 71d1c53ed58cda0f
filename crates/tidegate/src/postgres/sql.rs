//! The statements of a table, written once when it is opened. Names are quoted, values are parameters.

use std::sync::Arc;

use tidegate_core::port::Columns;

use super::support::{LOCK_CLASS, Support};
use super::table::{Keys, Values};

/// A name as it stands in a statement.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in a statement, whatever the server's setting for backslashes is.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The same for a text of many lines, to be read by people: between dollars, with a word that is not in it.
pub(super) fn dollar(text: &str) -> String {
    let words = (0..).map(|number| match number {
        0 => "$tidegate$".to_owned(),
        _ => format!("$tidegate_{number}$"),
    });
    // The text is of an end, so one of the words is not in it. A dollar at its end would make one with the word.
    let mut words = words.filter(|word| !text.contains(word.as_str()));
    let word = words.next().unwrap_or_default();
    format!("{word} {text} {word}")
}

/// The column for values that are no text, beside the one for those that are.
pub(super) fn binary(value: &str) -> String {
    // Cut so that it stays a name of its own and within the length of names.
    let end = (0..=value.len().min(56))
        .rev()
        .find(|end| value.is_char_boundary(*end));
    format!("{}_binary", &value[..end.unwrap_or(0)])
}

/// What the statements are made from.
pub(super) struct Shape<'a> {
    /// Quoted, with its schema.
    pub(super) table: String,
    /// Under which versions of deleted keys are remembered.
    pub(super) name: &'a str,
    pub(super) columns: &'a Columns,
    pub(super) keys: Keys,
    pub(super) values: Values,
    /// Whether the key column itself sorts by bytes.
    pub(super) sorted_by_bytes: bool,
    /// The advisory lock of the table.
    pub(super) lock: i32,
}

/// The statements of a table. Arrays are of one length, sorted by key.
pub(super) struct Statements {
    /// Live rows of keys: `$1` keys, `$2` now. Gives place, version, end of life, value.
    pub(super) load: Arc<str>,
    /// Locks rows in the order of keys: `$1` keys, `$2` now. Gives place, version, whether it is live.
    pub(super) lock: Arc<str>,
    /// The plain way to put, the version issued: `$1` now, keys, values, ends of life. Gives key, version,
    /// whether it is a new row, the number of the transaction. Holds the shared lock of the table.
    pub(super) put_always: Arc<str>,
    /// The same in a transaction of its own: the same parameters, then the session, the number of the batch
    /// in it, and its limit of time or nothing. Gives one row: the version of all rows, and if they differ the version of each; those of new
    /// rows are negative. If anything is not plain it fails, and nothing is written.
    pub(super) put_in_one_trip: Arc<str>,
    /// The plain way to put if newer: the same as `put_always` with versions at the end.
    pub(super) put_if_newer: Arc<str>,
    /// The plain way to put over what was there: the same with what each was made over at the end.
    pub(super) put_over: Arc<str>,
    /// Rows that are not there: keys, values, ends of life, versions. Gives the key of each.
    pub(super) insert: Arc<str>,
    /// Rows that are locked: the same.
    pub(super) update: Arc<str>,
    /// `$1` keys. Gives a row for each.
    pub(super) delete: Arc<str>,
    /// `$1` key, `$2` the same as bytes or nothing, `$3` now, `$4` limit. Gives key, version, end, value.
    pub(super) scan: Arc<str>,
    /// `$1` now.
    pub(super) count: Arc<str>,
    /// `$1` now, `$2` limit, `$3` table, `$4` when. Gives the number of rows removed.
    pub(super) sweep: Option<Arc<str>>,
    /// Remembered versions: `$1` keys as bytes, `$2` table. Gives place and version.
    pub(super) remembered: Arc<str>,
    /// Remembers: `$1` table, `$2` keys as bytes, `$3` versions, `$4` when.
    pub(super) remember: Arc<str>,
    /// Notes deletes that found no row in the outbox: `$1` table, `$2` keys as bytes, `$3` versions.
    pub(super) unseen: Arc<str>,
    /// `$1` table, `$2` before when, `$3` limit. Gives a row for each version dropped.
    pub(super) forget: Arc<str>,
}

impl Statements {
    pub(super) fn of(shape: &Shape<'_>, support: &Support) -> Self {
        let Shape { table, columns, .. } = shape;
        let key = quote(&columns.key);
        let version = quote(&columns.version);
        let key_type = match shape.keys {
            Keys::Text => "text",
            Keys::Bytes => "bytea",
        };
        // Columns of the value, types of their parameters, and casts from these.
        let value = quote(&columns.value);
        let values: Vec<(String, &str, &str)> = match shape.values {
            Values::Auto => vec![
                (value.clone(), "text", ""),
                (quote(&binary(&columns.value)), "bytea", ""),
            ],
            Values::Text => vec![(value.clone(), "text", "")],
            Values::Bytes => vec![(value.clone(), "bytea", "")],
            Values::Json => vec![(value.clone(), "text", "::json")],
            Values::Jsonb => vec![(value.clone(), "text", "::jsonb")],
        };
        let shown: Vec<String> = match shape.values {
            Values::Json | Values::Jsonb => vec![format!("t.{value}::text")],
            _ => values
                .iter()
                .map(|(name, ..)| format!("t.{name}"))
                .collect(),
        };
        let shown = shown.join(", ");
        let expires = columns.expires_at.as_deref().map(quote);
        let updated = columns.updated_at.as_deref().map(quote);
        let end = expires
            .as_ref()
            .map_or("null::timestamptz".into(), |at| format!("t.{at}"));
        // Absent is what has expired, and what an outside writer left without a value.
        let live = |now: &str| {
            let mut live = vec![format!("{now}::timestamptz is not null")];
            live.extend(
                expires
                    .iter()
                    .map(|at| format!("(t.{at} is null or t.{at} >= {now})")),
            );
            if shape.values != Values::Auto {
                live.push(format!("t.{value} is not null"));
            }
            live.join(" and ")
        };

        // The arrays of a put as rows `u`, from parameter `first` on: k, v0.., e, and further ones.
        let arrays = |first: usize, further: &[(&str, &str)]| {
            let mut types = vec![key_type];
            let mut names = vec!["k".to_owned()];
            for (i, (_, kind, _)) in values.iter().enumerate() {
                types.push(kind);
                names.push(format!("v{i}"));
            }
            if expires.is_some() {
                types.push("timestamptz");
                names.push("e".into());
            }
            for (name, kind) in further {
                types.push(kind);
                names.push((*name).into());
            }
            let types = types.iter().enumerate();
            let types: Vec<_> = types
                .map(|(i, kind)| format!("${}::{kind}[]", first + i))
                .collect();
            let (types, names) = (types.join(", "), names.join(", "));
            format!("unnest({types}) with ordinality as u ({names}, n)")
        };
        // Columns that a put writes and what it writes there, with the version from `number`.
        let mut names = vec![key.clone()];
        let mut sources = vec!["u.k".to_owned()];
        for (i, (name, _, cast)) in values.iter().enumerate() {
            names.push(name.clone());
            sources.push(format!("u.v{i}{cast}"));
        }
        if let Some(at) = &expires {
            names.push(at.clone());
            sources.push("u.e".into());
        }
        if let Some(at) = &updated {
            names.push(at.clone());
            sources.push("now()".into());
        }
        let set_excluded = names[1..]
            .iter()
            .map(|name| format!("{name} = excluded.{name}"));
        let set_excluded = set_excluded.collect::<Vec<_>>().join(", ");
        let set_source = names[1..].iter().zip(&sources[1..]);
        let set_source = set_source.map(|(name, source)| format!("{name} = {source}"));
        let set_source = set_source.collect::<Vec<_>>().join(", ");
        let (names, sources) = (names.join(", "), sources.join(", "));

        let sequence = literal(&support.sequence);
        let next = format!("nextval({sequence}::regclass)");
        let tombstone = &support.tombstone;
        let key_bytes = |key: &str| match shape.keys {
            Keys::Text => format!("convert_to({key}, 'UTF8')"),
            Keys::Bytes => key.to_owned(),
        };
        let order = match shape.keys {
            Keys::Text if !shape.sorted_by_bytes => format!("t.{key} collate \"C\""),
            _ => format!("t.{key}"),
        };
        let plain = |issued: &str, number: &str, version_of: &str, newer: &str, arrays: String| {
            // Rows come and go in the order of keys, so that writers cannot wait for each other in a
            // circle. What is dead is left to the exact way, which tells that it did not exist.
            //
            // The lock is held, and the number of the transaction known, before the first row is written:
            // every row comes out of a join with them. In one statement, because each statement has its
            // own trip from the server's answer to a woken process.
            format!(
                "with held as materialized (
                     select pg_current_xact_id()::text::bigint as ticket,
                     count(pg_advisory_xact_lock_shared({LOCK_CLASS}, {lock})) as locks{issued}
                 )
                 insert into {table} as t ({names}, {version})
                 select {sources}, {number} from held, {arrays} order by u.n
                 on conflict ({key}) do update set {set_excluded}, {version} = {version_of}
                 where {live}{newer}
                 returning t.{key}, t.{version}, t.xmax = 0, (select ticket from held)",
                live = live("$1"),
                lock = shape.lock,
            )
        };
        let with_version = [("ver", "bigint")];
        // The parameters after now and the arrays.
        let session = 3 + values.len() + usize::from(expires.is_some());
        let key_shown = match shape.keys {
            Keys::Text => format!("t.{key}::text collate \"C\""),
            Keys::Bytes => format!("t.{key}"),
        };
        Self {
            load: format!(
                "select u.n, t.{version}, {end}, {shown}
                 from unnest($1::{key_type}[]) with ordinality as u (k, n)
                 join {table} as t on t.{key} = u.k
                 where {}",
                live("$2"),
            )
            .into(),
            lock: format!(
                "select u.n, t.{version}, {}
                 from unnest($1::{key_type}[]) with ordinality as u (k, n)
                 join {table} as t on t.{key} = u.k
                 order by u.n for update of t",
                live("$2"),
            )
            .into(),
            // One number for the whole batch: keys have their versions each for itself. It was issued before
            // the row was locked, so of two writers the later one may bring the smaller number; it counts
            // from the version that it finds under the lock. A row that is new here may come after a
            // deletion that is newer than the number, which the look at the remembered versions shows.
            put_always: plain(
                &format!(", {next} as issued"),
                "held.issued",
                &format!("greatest(excluded.{version}, t.{version} + 1)"),
                "",
                arrays(2, &[]),
            )
            .into(),
            // Of all rows that are new, and only of these, deletions are looked up, when the rows are ours.
            //
            // The session is marked when the rows are written and before they are committed: who closes it
            // meanwhile makes the mark fail, and does not wait for a row that others hold.
            put_in_one_trip: format!(
                "with held as materialized (
                     select {next} as issued,
                     count(pg_advisory_xact_lock_shared({LOCK_CLASS}, {lock})) as locks
                 ), put as (
                     insert into {table} as t ({names}, {version})
                     select {sources}, held.issued from held, {arrays} order by u.n
                     on conflict ({key}) do update set {set_excluded},
                     {version} = greatest(excluded.{version}, t.{version} + 1)
                     where {live}
                     returning {key_shown} as k,
                     case when t.xmax = 0 then - t.{version} else t.{version} end as v
                 )
                 select done.low, done.versions, {mark}(${session}, ${batch}, done.is_whole, done.low,
                 done.versions, {name}, done.new_keys), {in_time}(${limit})
                 from (
                     select min(put.v) as low,
                     case when min(put.v) < max(put.v) then array_agg(put.v) end as versions,
                     array_agg(put.k) = $2 as is_whole,
                     array_agg({bytes}) filter (where put.v < 0) as new_keys
                     from put
                 ) as done",
                lock = shape.lock,
                arrays = arrays(2, &[]),
                live = live("$1"),
                mark = support.mark,
                name = literal(shape.name),
                bytes = key_bytes("put.k"),
                batch = session + 1,
                in_time = support.in_time,
                limit = session + 2,
            )
            .into(),
            put_if_newer: plain(
                "",
                "u.ver",
                &format!("excluded.{version}"),
                &format!(" and t.{version} < excluded.{version}"),
                arrays(2, &with_version),
            )
            .into(),
            // A table of what each was made over, hashed once a batch.
            put_over: plain(
                "",
                "u.ver",
                &format!("excluded.{version}"),
                &format!(
                    " and ((t.{key}, greatest(t.{version}, 1)) in (
                         select b.k, b.base from unnest($2::{key_type}[], ${base}::bigint[]) as b (k, base)
                         where b.base is not null
                     ) or (t.{version} < excluded.{version} and t.{key} in (
                         select b.k from unnest($2::{key_type}[], ${base}::bigint[]) as b (k, base)
                         where b.base is null
                     )))",
                    base = session + 1,
                ),
                arrays(2, &with_version),
            )
            .into(),
            insert: format!(
                "insert into {table} as t ({names}, {version})
                 select {sources}, u.ver from {} order by u.n
                 on conflict ({key}) do nothing returning t.{key}",
                arrays(1, &with_version),
            )
            .into(),
            update: format!(
                "update {table} as t set {set_source}, {version} = u.ver
                 from {} where t.{key} = u.k returning t.{key}",
                arrays(1, &with_version),
            )
            .into(),
            delete: format!(
                "delete from {table} as t where t.{key} = any($1::{key_type}[]) returning 1"
            )
            .into(),
            scan: format!(
                "select t.{key}, t.{version}, {end}, {shown} from {table} as t
                 where {order} >= $1::{key_type}
                 and ($2::bytea is null or {} > $2) and {}
                 order by {order} limit $4",
                key_bytes(&format!("t.{key}")),
                live("$3"),
            )
            .into(),
            count: format!(
                "select count(*) from {table} as t where t.{key} is not null and {}",
                live("$1"),
            )
            .into(),
            sweep: expires.as_ref().map(|at| {
                // Rows that somebody writes at this moment are left for the next sweep. Materialized, or a
                // join may run it once per row, each time with other rows.
                format!(
                    "with dead as materialized (
                         select t.{key} from {table} as t where t.{at} < $1
                         order by t.{at} limit $2 for update skip locked
                     ), gone as (
                         delete from {table} as t using dead where t.{key} = dead.{key}
                         returning t.{key} as k, t.{version} as ver
                     ), kept as (
                         insert into {tombstone} as m (table_name, key, version, deleted_at)
                         select $3, {bytes}, gone.ver, $4 from gone order by 2
                         on conflict (table_name, key) do update
                         set version = excluded.version, deleted_at = excluded.deleted_at
                         where m.version < excluded.version
                     )
                     select count(*) from gone",
                    bytes = key_bytes("gone.k"),
                )
                .into()
            }),
            remembered: format!(
                "select u.n, m.version from unnest($1::bytea[]) with ordinality as u (k, n)
                 join {tombstone} as m on m.table_name = $2 and m.key = u.k"
            )
            .into(),
            remember: format!(
                "insert into {tombstone} as m (table_name, key, version, deleted_at)
                 select $1, u.k, u.ver, $4
                 from unnest($2::bytea[], $3::bigint[]) with ordinality as u (k, ver, n) order by u.n
                 on conflict (table_name, key) do update
                 set version = excluded.version, deleted_at = excluded.deleted_at
                 where m.version < excluded.version"
            )
            .into(),
            // A row that others have made and not committed is not seen, whatever lock is held, and its number is older
            // than that of the deletion. Nobody is to take the key for absent when it appears. Told after our commit,
            // and therefore to whoever learned of the deletion from us, with a number that is greater.
            unseen: format!(
                "insert into {outbox} (table_name, key, version)
                 select $1, u.k, (least(u.ver, {max}) + 1) | 1
                 from unnest($2::bytea[], $3::bigint[]) as u (k, ver)",
                outbox = support.outbox,
                max = i64::MAX - 2,
            )
            .into(),
            forget: format!(
                "with old as materialized (
                     select key from {tombstone}
                     where table_name = $1 and deleted_at < $2
                     order by deleted_at limit $3 for update skip locked
                 )
                 delete from {tombstone} as m using old
                 where m.table_name = $1 and m.key = old.key and m.deleted_at < $2 returning 1"
            )
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_end_early() {
        assert_eq!(quote(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal(r"it's \'"), r"E'it\'s \\\''");
        assert_eq!(dollar("a$"), "$tidegate$ a$ $tidegate$");
        let within = dollar(&dollar("a"));
        assert_eq!(within, "$tidegate_1$ $tidegate$ a $tidegate$ $tidegate_1$");
        assert_eq!(binary("value"), "value_binary");
        assert_eq!(binary(&"ä".repeat(31)).len(), 63);
    }
}
