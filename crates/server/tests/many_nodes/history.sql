-- Every change of a row, in the order of commits of each key: the number is taken while the row is locked, and the
-- next one to change the row waits for this transaction.
create table change (
    number bigserial primary key,
    key text not null,
    version bigint,
    value text
);

create function change_happened() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        insert into change (key) values (old.key);
    else
        -- Not every table has versions.
        insert into change (key, version, value)
        values (new.key, (to_jsonb(new) ->> 'version')::bigint, new.value);
    end if;
    return null;
end $$;
