-- Caller: message. Locks: none. Index: primary keys and route_destination_idx.
-- $1 seq, $2 topic, $3 key. A row says it; else a marker; else the cursor and the gaps do.
select d.name,
       case when e.state is not null then e.state
            when k.from_seq is not null then 'parked_from'
            when not exists (select from {schema}.route r
                              where r.destination = d.name and $1 >= r.from_seq
                                and (r.to_seq is null or $1 <= r.to_seq)
                                and $2::text like r.like_pattern) then 'unrouted'
            when $1 <= coalesce(p.cursor, 0)
                 and not exists (select from {schema}.gap g where g.destination = d.name
                                    and $1 between g.lo and g.hi) then 'sent'
            else 'pending' end
  from {schema}.destination d
  left join {schema}.progress p on p.destination = d.name
  left join {schema}.delivery e on e.destination = d.name and e.seq = $1
  left join {schema}.parked_key k on k.destination = d.name and k.topic = $2 and k.key = $3
        and k.from_seq <= $1
 order by d.name
