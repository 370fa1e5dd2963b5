-- Caller: PostgresStore::beat. Locks: none. Index: none, a handful of rows.
select d.name, l.owner, coalesce(l.epoch, 0), d.paused, d.control_version
  from {schema}.destination d
  left join {schema}.lease l on l.destination = d.name
 order by d.name
