-- Caller: PostgresStore::claim. Locks: the lease row, behind a running settle of its old owner (which
-- holds it FOR SHARE), so that none commits after this. Index: lease_pkey, destination_pkey.
-- $1 destination, $2 instance, $3 owner and $4 epoch as they were seen.
insert into {schema}.lease as l (destination, owner, epoch)
select d.name, $2, $4 + 1 from {schema}.destination d where d.name = $1 and not d.paused
    on conflict (destination) do update set owner = $2, epoch = l.epoch + 1
        where l.epoch = $4 and l.owner is not distinct from $3
returning epoch
