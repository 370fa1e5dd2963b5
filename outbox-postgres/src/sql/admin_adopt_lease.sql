-- Caller: adopt. Locks: the lease. Index: lease_pkey.
-- Its owner led the other store; a relay of this one may take it at once. $1 destination.
update {schema}.lease set owner = null where destination = $1
