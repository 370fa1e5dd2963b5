-- Caller: Session::parked. Locks: none. Index: delivery_key_idx, parked_key_pkey.
-- Rows first; a last row with a null seq carries the marker.
(select d.seq, d.attempts, d.redelivery, null::int8 as marker
   from {schema}.delivery d
  where d.destination = $1 and d.topic = $2 and d.key = $3 and d.state = 'parked'
  order by d.topic, d.key, d.seq limit $4)
union all
(select null, null, null, k.from_seq from {schema}.parked_key k
  where k.destination = $1 and k.topic = $2 and k.key = $3)
