-- Caller: Outbox::enqueue, in the service's own transaction. Locks: none, or for a strict topic an
-- advisory lock on (topic, key) to the end of the transaction. Index: topic_pkey.
select {schema}.enqueue_bytes($1, $2, $3, $4, $5, $6, $7, $8)
