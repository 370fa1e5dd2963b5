-- Caller: Session::open. Locks: the session's row. Index: session_pkey.
-- The table is unlogged: a crash or a promotion takes the row away, and the next page notices.
insert into {schema}.session as s (destination, token, epoch) values ($1, $2, $3)
    on conflict (destination) do update set token = $2, epoch = $3
