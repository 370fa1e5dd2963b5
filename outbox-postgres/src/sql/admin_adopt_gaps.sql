-- Caller: adopt. Locks: the gaps of one destination. Index: gap_pkey.
-- A fence of another cluster says nothing about the transactions of this one. $1 destination.
update {schema}.gap set fence = pg_current_xact_id() where destination = $1
