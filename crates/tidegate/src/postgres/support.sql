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

create index if not exists tidegate_tombstone_age
on {schema}.tidegate_tombstone (table_name, deleted_at);

commit;
