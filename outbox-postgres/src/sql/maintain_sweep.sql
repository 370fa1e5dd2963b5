-- Caller: maintain. Locks: rows that nobody needs any more. Index: none, small tables.
-- $1 retention in seconds.
select {schema}.maintain_sweep(make_interval(secs => $1))
