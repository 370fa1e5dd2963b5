-- Caller: maintain, doctor. Locks: none. Index: none; the default partition is empty as a rule.
select {schema}.default_rows()
