-- Caller: doctor. Locks: none. Index: none.
-- $1 last seq: how many partitions lie wholly ahead of it, where they end, and which are half gone.
select count(*) filter (where p.lo > $1), coalesce(max(p.hi), 0), count(*),
       string_agg(format('%I', p.name), ', ' order by p.name) filter (where p.detaching)
  from {schema}.partitions() p
