-- Caller: Session::page, when nobody else flushes (writers with synchronous_commit = off). Locks: none.
-- Index: none. A transaction with a WAL record of a few bytes; its own commit is synchronous, and so
-- flushes everything before it.
-- As text: to look up a type it does not know, sqlx would prepare another statement over this one.
select set_config('synchronous_commit', 'local', true),
       pg_logical_emit_message(true, 'outbox', '')::text
