-- Caller: Outbox::enqueue, in the service's own transaction. Locks: none, or for a strict topic an
-- advisory lock on (topic, key) to the end of the transaction. Index: topic_pkey.
-- Not a call of enqueue_bytes, which does the same at twice the price: the rule behind the view is planned
-- once for each connection.
insert into {schema}.outgoing
    (id, topic, key, payload, content_type, headers, deliver_after, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)
