begin immediate;

-- Numbers of the store's own: `generation`, and `version`, the last version issued.
create table if not exists tidegate_meta (
    name text not null primary key,
    value integer not null
) without rowid;

insert into tidegate_meta (name, value)
values ('generation', 0), ('version', 0)
on conflict (name) do nothing;

-- Versions of deleted keys, so that a late write cannot bring one back.
create table if not exists tidegate_tombstone (
    table_name text not null,
    key not null,
    version integer not null,
    deleted_at integer not null,
    primary key (table_name, key)
) without rowid;

create index if not exists tidegate_tombstone_age
on tidegate_tombstone (table_name, deleted_at);

commit;
