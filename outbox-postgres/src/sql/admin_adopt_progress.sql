-- Caller: adopt. Locks: none. Index: progress_0_pkey and progress_1_pkey.
-- $1 destination, $2 incarnation: the newest progress again, written on this store.
insert into {schema}.progress_0
       (destination, incarnation, epoch, cursor, low_water, high_water)
select p.destination, $2, p.epoch, p.cursor, p.low_water, p.high_water
  from {schema}.progress p where p.destination = $1
