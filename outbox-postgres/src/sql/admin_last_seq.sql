-- Caller: declare, status, request. Locks: none. Index: none, one row.
select case when is_called then last_value else last_value - 1 end from {schema}.message_seq
