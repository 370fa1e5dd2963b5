-- Caller: maintain. Locks: one old partition; never waits over 50 ms. Index: message_pkey.
-- $1 retention in seconds.
select partition, kept from {schema}.maintain_empty(make_interval(secs => $1))
