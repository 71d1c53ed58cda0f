//! The triggers that note what others change in a table: for each row its key and version into the outbox, and a
//! version that is greater than every one before, also where rows are inserted and deleted.
//!
//! Our own connections are told from others by a setting that they make when they begin, which costs our writes one
//! look at it for each row. What a trigger or a foreign key changes further in our transactions counts as others'.
//! Whoever makes the same setting for a connection of their own takes it upon them to tell of their changes.
//!
//! Of two who delete and make a key at the same time, the one who makes it may have taken a number that the deletion
//! has passed meanwhile. Its statement fails with a serialization failure (40001), to be tried again: the row cannot be
//! given another number any more, but by a statement that would set off the triggers of others with our rights.
//!
//! The other way round, a delete of ours that finds no row is noted as well: others may be about to make that row, with
//! an older number, and nobody is to take the key for absent when it appears.
//!
//! Rows are noted one by one and not by statement: for a trigger by statement the server would keep a copy of every
//! row that we write. Nodes poll. They are not notified: a transaction that notifies commits under a lock that all
//! databases of the server share, so that every writer would wait for every other.

use tidegate_core::port::TableSpec;
use tokio_postgres::Client;

use super::ddl::fitted;
use super::sql::{dollar, literal, quote};
use super::support::Support;

/// The setting by which our connections are known.
pub(super) const OWN: &str = "tidegate.own";

/// The names of the triggers. Each table has its own triggers, so they are the same for all. They come before the
/// trigger that raises the versions of updates, which has nothing to do then.
const TRIGGERS: [&str; 3] = [
    "tidegate_outside_before",
    "tidegate_outside_after",
    "tidegate_outside_truncate",
];

/// Whether the table has all triggers and they are on.
pub(super) async fn is_watched(client: &Client, oid: u32) -> Result<bool, tokio_postgres::Error> {
    const WATCHED: &str = "select count(*) = 3 from pg_trigger
        where tgrelid = $1 and tgname = any ($2) and tgenabled in ('O', 'A')";
    let row = client.query_one(WATCHED, &[&oid, &&TRIGGERS[..]]).await?;
    Ok(row.get(0))
}

/// The function of tables with these columns: none of the names can be taken for another.
fn function(support: &Support, spec: &TableSpec) -> String {
    let columns = &spec.columns;
    let name = fitted("tidegate_outside", &[&columns.key, &columns.version]);
    format!("{}.{}", support.schema, quote(&name))
}

/// The steps of a block that make the triggers of a table, whose name is quoted. Those that are there are made anew.
pub(super) fn watch(support: &Support, quoted: &str, spec: &TableSpec) -> String {
    let function = function(support, spec);
    let body = dollar(&body(support, spec));
    let named = literal(&format!("{function}()"));
    let others =
        format!("coalesce(current_setting('{OWN}', true), '') <> 'on' or pg_trigger_depth() > 0");
    let [before, after, truncate] = TRIGGERS;
    format!(
        "begin
             -- With the rights of its owner, because others have none to the store's own tables.
             create or replace function {function}() returns trigger language plpgsql security definer
             set search_path = pg_catalog, pg_temp as {body};
             -- Nobody else hangs it on a table of theirs, to have steps of theirs run with these rights.
             revoke all on function {function}() from public;
         exception when insufficient_privilege then
             if not exists (select from pg_proc where oid = to_regprocedure({named}) and prosrc = {body}) then
                 raise;
             end if;
         end;
         drop trigger if exists {before} on {quoted};
         create trigger {before} before insert or update on {quoted}
         for each row when ({others}) execute function {function}();
         drop trigger if exists {after} on {quoted};
         create trigger {after} after insert or update or delete on {quoted}
         for each row when ({others}) execute function {function}();
         drop trigger if exists {truncate} on {quoted};
         create trigger {truncate} before truncate on {quoted}
         for each statement execute function {function}();"
    )
}

/// What the triggers do.
fn body(support: &Support, spec: &TableSpec) -> String {
    let key = quote(&spec.columns.key);
    let version = quote(&spec.columns.version);
    let Support {
        sequence,
        tombstone,
        outbox,
        key: as_bytes,
        ..
    } = support;
    let sequence = literal(sequence);
    // The next odd version, as far as there is one.
    let raised = |version: &str| {
        format!(
            "((least(greatest({version}, 1), {max}) + 1) | 1)",
            max = i64::MAX - 2
        )
    };
    let remember_all = format!(
        "insert into {tombstone} as m (table_name, key, version, deleted_at)
         select $1, {as_bytes}(t.{key}), {next}, now() from %s as t where t.{key} is not null
         on conflict (table_name, key) do update set
         version = greatest(excluded.version, {above}), deleted_at = excluded.deleted_at",
        next = raised(&format!("t.{version}")),
        above = raised("m.version"),
    );
    format!(
        "declare
             of_table constant text := TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME;
             known bigint;
         begin
             if TG_OP = 'TRUNCATE' then
                 execute format({remember_all}, TG_RELID::regclass) using of_table;
                 insert into {outbox} (table_name, version) values (of_table, 0);
                 return null;
             end if;
             if TG_WHEN = 'BEFORE' then
                 if TG_OP = 'UPDATE' and new.{key} = old.{key} then
                     if new.{version} <= old.{version} then
                         new.{version} := {above_old};
                     end if;
                 else
                     select m.version into known from {tombstone} as m
                     where m.table_name = of_table and m.key = {as_bytes}(new.{key});
                     new.{version} := greatest(new.{version}, least(coalesce(known, 0), {max}) + 1,
                         nextval({sequence}::regclass)) | 1;
                 end if;
                 return new;
             end if;
             if TG_OP = 'DELETE' or TG_OP = 'UPDATE' and new.{key} is distinct from old.{key} then
                 insert into {tombstone} as m (table_name, key, version, deleted_at)
                 values (of_table, {as_bytes}(old.{key}), {above_old}, now())
                 on conflict (table_name, key) do update set
                 version = greatest(excluded.version, {above_deleted}), deleted_at = excluded.deleted_at
                 returning m.version into known;
                 insert into {outbox} (table_name, key, version)
                 values (of_table, {as_bytes}(old.{key}), known);
             end if;
             if TG_OP = 'DELETE' then
                 return null;
             end if;
             if TG_OP = 'INSERT' or new.{key} is distinct from old.{key} then
                 -- A row that waited for the deletion of the one before did not see it when it got its number. Where
                 -- it cannot see it now either, because of the isolation, the server refuses to pass it by.
                 if current_setting('transaction_isolation') <> 'read committed' then
                     insert into {tombstone} (table_name, key, version, deleted_at)
                     values (of_table, {as_bytes}(new.{key}), 0, now()) on conflict do nothing;
                 end if;
                 select m.version into known from {tombstone} as m
                 where m.table_name = of_table and m.key = {as_bytes}(new.{key});
                 if known >= new.{version} then
                     raise exception 'the key was deleted at the same time: try again'
                     using errcode = 'serialization_failure';
                 end if;
             end if;
             insert into {outbox} (table_name, key, version)
             values (of_table, {as_bytes}(new.{key}), new.{version});
             return null;
         end",
        remember_all = literal(&remember_all),
        above_old = raised(&format!("old.{version}")),
        above_deleted = raised("m.version"),
        max = i64::MAX - 2,
    )
}
