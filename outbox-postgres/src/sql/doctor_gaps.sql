-- Caller: doctor. Locks: none. Index: none, gaps are few.
-- Gaps open for over a minute, and who may still fill them: whoever writes to the log.
select count(*), coalesce(extract(epoch from clock_timestamp() - min(g.opened_at)), 0)::float8,
       coalesce(min(g.lo), 0),
       (select string_agg(distinct coalesce('pid ' || l.pid, 'a prepared transaction'), ', ')
          from pg_locks l
         where l.relation = '{schema_in_text}.message'::regclass and l.mode = 'RowExclusiveLock')
  from {schema}.gap g
 where g.opened_at < clock_timestamp() - interval '1 minute'
