-- Caller: request, by id. Locks: none. Index: none on id: it scans the stretch that it is given.
-- $1 ids, $2 and $3 the stretch, both ends included.
select seq from {schema}.message where id = any ($1::uuid[]) and seq between $2 and $3
union
select seq from {schema}.kept where id = any ($1::uuid[])
