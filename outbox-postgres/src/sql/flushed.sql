-- Caller: Session::page, while what it read may not be durable yet. Locks: none. Index: none.
select (pg_current_wal_flush_lsn() - '0/0')::int8
