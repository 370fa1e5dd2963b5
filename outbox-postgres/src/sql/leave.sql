-- Caller: PostgresStore::leave, when a relay stops. Locks: the relay's own row. Index: relay_pkey.
delete from {schema}.relay where instance = $1
