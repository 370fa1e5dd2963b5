-- Caller: request. Locks: the destination's row. Index: destination_pkey.
-- $1 destination, $2 action, $3 seqs, at most 1,000.
with asked as (
    insert into {schema}.request (destination, action, seqs) values ($1, $2, $3) returning destination)
update {schema}.destination d set control_version = control_version + 1
  from asked where d.name = asked.destination
