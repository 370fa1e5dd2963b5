-- Caller: doctor. Locks: none. Index: none.
-- Who keeps dead rows from being vacuumed, cluster-wide: the oldest of each kind, in transactions.
select distinct on (h.kind) h.kind, h.name, h.age, h.seconds
  from (select 'session' as kind, format('pid %s (%s in %s)', a.pid, a.usename, a.datname) as name,
               greatest(age(a.backend_xmin), age(a.backend_xid)) as age,
               extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds
          from pg_stat_activity a where a.pid <> pg_backend_pid()
        union all
        select 'prepared transaction', quote_literal(x.gid), age(x.transaction),
               extract(epoch from clock_timestamp() - x.prepared)::float8
          from pg_prepared_xacts x
        union all
        select 'replication slot', quote_ident(s.slot_name),
               greatest(age(s.xmin), age(s.catalog_xmin)), null
          from pg_replication_slots s) h
 where h.age is not null
 order by h.kind, h.seconds desc nulls last, h.age desc
