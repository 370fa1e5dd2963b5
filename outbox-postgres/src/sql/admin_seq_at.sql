-- Caller: declare (start at a time), message, request. Locks: none. Index: message_pkey, about forty
-- look-ups. $1 time: the first seq whose message was created then or later, give or take seconds.
select {schema}.seq_at($1)
