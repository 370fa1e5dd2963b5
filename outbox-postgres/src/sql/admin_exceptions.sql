-- Caller: exceptions. Locks: none. Index: delivery_pkey; the log and kept by their primary keys.
-- $1 destination, $2 state, $3 after seq (each NULL: any), $4 limit. A marker counts as a row of the
-- state parked_from.
select e.destination, e.seq, m.id, e.topic, e.key, e.state, e.attempts, e.next_attempt, e.last_error,
       e.blocks_key, m.created_at
  from (select d.destination, d.seq, d.topic, d.key, d.state, d.attempts, d.next_attempt,
               d.last_error, d.blocks_key
          from {schema}.delivery d
        union all
        select k.destination, k.from_seq, k.topic, k.key, 'parked_from', 0, null, null, false
          from {schema}.parked_key k) e
  left join lateral (
       select l.id, l.created_at from {schema}.message l where l.seq = e.seq
       union all
       select k.id, k.created_at from {schema}.kept k where k.seq = e.seq
        limit 1) m on true
 where ($1::text is null or e.destination = $1)
   and ($2::text is null or e.state = $2)
   and ($3::bigint is null or e.seq > $3)
 order by e.seq, e.destination
 limit $4
