-- Caller: import_position, import when it refuses. Locks: none. Index: import_pkey.
select coalesce((select position from {schema}.import where source = $1), 0)
