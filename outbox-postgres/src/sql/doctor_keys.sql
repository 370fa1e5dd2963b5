-- Caller: doctor. Locks: none. Index: none, exceptions are few.
-- Keys that wait for an operator: a dead message blocks them.
select count(distinct (d.destination, d.topic, d.key)),
       coalesce(extract(epoch from clock_timestamp() - min(d.updated_at)), 0)::float8,
       (array_agg(format('%s at %s', d.key, d.destination) order by d.seq))[1]
  from {schema}.delivery d
 where d.state = 'dead' and d.blocks_key
