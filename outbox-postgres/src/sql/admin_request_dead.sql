-- Caller: request, of dead messages. Locks: none. Index: delivery_pkey, then primary keys.
-- $1 destination, $2 since, $3 until (each NULL: open), $4 expired ones too.
select e.seq
  from {schema}.delivery e
  left join lateral (
       select l.created_at from {schema}.message l where l.seq = e.seq
       union all
       select k.created_at from {schema}.kept k where k.seq = e.seq
        limit 1) m on true
 where e.destination = $1
   and (e.state = 'dead' or ($4 and e.state = 'expired'))
   and ($2::timestamptz is null or m.created_at >= $2)
   and ($3::timestamptz is null or m.created_at < $3)
