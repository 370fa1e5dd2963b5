-- Caller: PostgresStore::beat. Locks: none. Index: none, a handful of rows.
select instance, beat from {schema}.relay order by instance
