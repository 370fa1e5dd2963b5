-- Caller: Session::poll, up to a thousand times a second. Locks: none. Index: none; one page of one
-- relation without planning, whatever the number of partitions.
select case when is_called then last_value else 0 end from {schema}.message_seq
