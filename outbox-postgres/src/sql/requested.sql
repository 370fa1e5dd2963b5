-- Caller: Session::requests. Locks: none. Index: delivery_pkey.
-- $2: seqs, with the topics and keys that were read from the log ($3, $4).
select n.seq, n.topic, n.key, d.state, d.attempts, d.next_attempt, d.last_error, d.redelivery,
       d.blocks_key
  from unnest($2::int8[], $3::text[], $4::text[]) with ordinality n(seq, topic, key, place)
  left join {schema}.delivery d on d.destination = $1 and d.seq = n.seq
 order by n.place
