-- Caller: declare. Index: none.
-- Locks: one declaration at a time, until its transaction ends; and every lease row against settles (which
-- take it FOR SHARE), so that no cursor passes the last seq that is read next under the old routes.
with leases as materialized (select from {schema}.lease for update)
select pg_advisory_xact_lock(hashtextextended({schema_literal} || ' declare', 0)),
       (select count(*) from leases)
