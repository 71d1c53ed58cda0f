begin isolation level read committed read write;

-- Processes that start at once make these one after the other.
select pg_advisory_xact_lock({lock}, 0);

-- Versions. Without a cache, so that numbers are given out in the order of row locks.
create sequence if not exists {schema}.tidegate_version as bigint cache 1;

-- Numbers of the store's own: `generation`.
create table if not exists {schema}.tidegate_meta (
    name text primary key,
    value bigint not null
);

insert into {schema}.tidegate_meta (name, value)
values ('generation', 0)
on conflict (name) do nothing;

-- Versions of deleted keys, so that a late write cannot bring one back.
create table if not exists {schema}.tidegate_tombstone (
    table_name text collate "C" not null,
    key bytea not null,
    version bigint not null,
    deleted_at timestamptz not null,
    primary key (table_name, key)
);

-- Connections that write in one round trip: how far each has come, and whether it may go on. Rows are changed with
-- every batch, in place as long as their page has room.
create table if not exists {schema}.tidegate_session (
    id bigint primary key,
    batch bigint not null default 0,
    version bigint,
    versions bigint[],
    closed boolean not null default false,
    used_at timestamptz not null default now()
) with (fillfactor = 20);

create index if not exists tidegate_tombstone_age
on {schema}.tidegate_tombstone (table_name, deleted_at);

-- The last step of a batch that is one statement: marks its session, or undoes it by an error. TG001: a key that is
-- new here has a deletion that is as new, or the rows are not those that were asked for. TG002: the session is closed
-- or gone. The version is negative if rows are new.
--
-- In a function, because each statement in it sees what was committed until it begins, also what was committed while
-- the statement that calls it waited for rows. Sessions are few rows with many dead versions, which are walked past
-- by the index and not by reading the table.
create or replace function {schema}.tidegate_mark(
    of_session bigint, of_batch bigint, is_whole boolean, of_version bigint, of_versions bigint[],
    of_table text, new_keys bytea[]
) returns boolean language plpgsql volatile set enable_seqscan = off as $mark$ begin
    if is_whole is not true or new_keys is not null and exists (
        select from {schema}.tidegate_tombstone as m
        where m.table_name = of_table and m.key = any (new_keys) and m.version >= - of_version
    ) then
        raise exception 'not plain' using errcode = 'TG001';
    end if;
    update {schema}.tidegate_session as s
    set batch = of_batch, version = of_version, versions = of_versions, used_at = now()
    where s.id = of_session and not s.closed;
    if not found then
        raise exception 'no session' using errcode = 'TG002';
    end if;
    return true;
end $mark$;

-- The very last step of a batch that has a limit of time: undoes it by an error (TG003) if the clock is past it. The
-- number of the transaction is taken before the clock is read: whoever finds the clock past the limit, and then waits
-- for all numbers that were given out by then, has waited for every batch that passed here.
create or replace function {schema}.tidegate_in_time(commit_by timestamptz)
returns boolean language plpgsql volatile strict as $in_time$ begin
    perform pg_current_xact_id();
    if clock_timestamp() > commit_by then
        raise exception 'too late' using errcode = 'TG003';
    end if;
    return true;
end $in_time$;

-- The nodes that share this database, when each was last heard of, and the settings of its classes: class, name and
-- setting by place. A class without settings stands with an empty name.
create table if not exists {schema}.tidegate_node (
    id bigint primary key,
    seen_at timestamptz not null,
    classes text[] not null,
    names text[] not null,
    settings text[] not null
);

-- Changes that others made to tables which keep an outbox, by the number of the transaction. Without a key: all of
-- the table. Read up to the oldest transaction that is not finished, because numbers are not committed in their order.
create table if not exists {schema}.tidegate_outbox (
    xid xid8 not null default pg_current_xact_id(),
    id bigserial not null,
    table_name text collate "C" not null,
    key bytea,
    version bigint not null,
    at timestamptz not null default clock_timestamp(),
    primary key (xid, id)
);

-- Where the outbox begins: what was removed last, and what may be removed an hour after `bound_at`.
create table if not exists {schema}.tidegate_outbox_start (
    only_row boolean primary key default true check (only_row),
    removed_xid xid8,
    removed_id bigint,
    bound xid8,
    bound_at timestamptz
);

insert into {schema}.tidegate_outbox_start default values
on conflict do nothing;

-- A key as it is remembered and told: as bytes, whatever the type of its column is.
create or replace function {schema}.tidegate_key(key text) returns bytea
language sql immutable strict as $key$ select pg_catalog.convert_to(key, 'UTF8') $key$;

create or replace function {schema}.tidegate_key(key bytea) returns bytea
language sql immutable strict as $key$ select key $key$;

commit;
