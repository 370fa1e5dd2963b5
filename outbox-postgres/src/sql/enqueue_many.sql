-- Caller: Outbox::enqueue_all, in the service's own transaction. Locks and index as enqueue.
select {schema}.enqueue_many_bytes($1, $2, $3, $4, $5::text[]::jsonb[], $6, $7, $8)
