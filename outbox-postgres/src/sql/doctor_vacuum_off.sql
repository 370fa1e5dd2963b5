-- Caller: doctor. Locks: none. Index: none.
select string_agg(c.relname, ', ' order by c.relname)
  from pg_class c
 where c.relnamespace = (select n.oid from pg_namespace n where n.nspname = {schema_literal})
   and c.reloptions && array['autovacuum_enabled=false', 'autovacuum_enabled=off']
