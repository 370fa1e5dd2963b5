-- Caller: PostgresStore::release. Locks: the lease row. Index: lease_pkey.
update {schema}.lease set owner = null
 where destination = $1 and owner = $2 and epoch = $3
