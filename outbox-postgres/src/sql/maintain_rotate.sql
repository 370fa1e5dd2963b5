-- Caller: maintain. Locks: see migrations/postgres/0004_maintenance.sql; never waits over 50 ms.
-- Index: none.
select {schema}.maintain_rotate()
