-- Caller: declare, of a new destination. Locks: its new rows. Index: destination_pkey, lease_pkey.
-- $1 name, $2 config, $3 paused.
with new_destination as (
    insert into {schema}.destination (name, config, paused) values ($1, $2, $3) returning name)
insert into {schema}.lease (destination) select name from new_destination
