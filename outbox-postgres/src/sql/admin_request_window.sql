-- Caller: request, of a window. Locks: none. Index: message_pkey over the stretch.
-- $1 destination, $2 since, $3 until, $4 and $5 the stretch of the log, both ends included.
select m.seq
  from (select seq, topic, created_at from {schema}.message where seq between $4 and $5
        union
        select seq, topic, created_at from {schema}.kept) m
 where m.created_at >= $2 and m.created_at < $3
   and exists (select from {schema}.route r
                where r.destination = $1 and m.seq >= r.from_seq
                  and (r.to_seq is null or m.seq <= r.to_seq) and m.topic like r.like_pattern)
