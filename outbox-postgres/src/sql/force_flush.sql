-- Caller: Session::page, when nobody else flushes (writers with synchronous_commit = off). Locks: none.
-- Index: none. A transaction with a WAL record of a few bytes; its own commit is synchronous, and so
-- flushes everything before it.
select set_config('synchronous_commit', 'local', true),
       pg_logical_emit_message(true, 'outbox', '')::text
