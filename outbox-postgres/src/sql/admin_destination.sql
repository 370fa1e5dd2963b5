-- Caller: declare. Locks: none, behind the declare lock. Index: destination_pkey, route_destination_idx.
select d.config, d.paused,
       coalesce((select array_agg(r.pattern order by r.id) from {schema}.route r
                  where r.destination = d.name and r.to_seq is null), '{}')
  from {schema}.destination d
 where d.name = $1
