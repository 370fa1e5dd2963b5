-- Caller: declare. Locks: one declaration at a time, until its transaction ends. Index: none.
select pg_advisory_xact_lock(hashtextextended({schema_literal} || ' declare', 0))
