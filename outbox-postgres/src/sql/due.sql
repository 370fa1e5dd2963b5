-- Caller: Session::due. Locks: none. Index: delivery_due_idx.
-- One row more than asked for says when the next one is due.
select seq, state, attempts, redelivery, blocks_key, next_attempt
  from {schema}.delivery
 where destination = $1 and next_attempt is not null
 order by next_attempt, seq limit $2
