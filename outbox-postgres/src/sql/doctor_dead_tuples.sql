-- Caller: doctor. Locks: none. Index: none.
select s.relname::text, s.n_dead_tup, pg_size_pretty(pg_relation_size(s.relid)),
       coalesce('autovacuum_enabled=false' = any (c.reloptions)
                or 'autovacuum_enabled=off' = any (c.reloptions), false)
  from pg_stat_user_tables s
  join pg_class c on c.oid = s.relid
 where s.schemaname = {schema_literal}
 order by s.n_dead_tup desc
 limit 1
