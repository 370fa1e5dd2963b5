-- Caller: Session::settle, up to about 20 times a second. Index: primary keys.
-- Locks: the lease row FOR SHARE, so that a takeover waits for this and this for a takeover; after the
-- wait the guard is checked against the row as it then is. Every write selects FROM the guard: a
-- data-modifying CTE that only stands beside it would write even when the guard finds nothing.
-- The xid is allocated after every page this session has read, and so serves as their fence.
--  $1 destination     $2 epoch           $3 route_version
--  $4 write progress  $5 incarnation     $6 cursor   $7 high water  $8 lowest seq of gaps and upserts
--  $9 gaps to remove, by lo
-- $10 gaps: lo       $11 hi             $12 fence, or null for this transaction's xid  $13 age in seconds
-- $14 deliveries to remove
-- $15 deliveries: seq $16 topic $17 key $18 state $19 attempts $20 next_attempt $21 last_error
-- $22 redelivery     $23 blocks_key
-- $24 markers: topic $25 key            $26 from_seq, or null to clear
-- $27 requests applied
-- $28 unrouted: topic $29 count         $30 first     $31 last
-- $32 owner: a lease that was given back is lost, though its epoch stands
with guard as materialized (
    select 1 from {schema}.lease l
     where l.destination = $1 and l.epoch = $2 and l.route_version = $3 and l.owner = $32
       for share
), low as (
    select least($6 + 1, $8,
               (select min(d.seq) from {schema}.delivery d where d.destination = $1
                   and d.state in ('retrying', 'parked', 'scheduled')),
               (select min(k.from_seq) from {schema}.parked_key k where k.destination = $1)) as water
), progress_0 as (
    insert into {schema}.progress_0 (destination, incarnation, epoch, cursor, low_water, high_water)
    select $1, $5, $2, $6, low.water, $7 from guard, low, {schema}.rotation r
     where $4 and r.active = 0
), progress_1 as (
    insert into {schema}.progress_1 (destination, incarnation, epoch, cursor, low_water, high_water)
    select $1, $5, $2, $6, low.water, $7 from guard, low, {schema}.rotation r
     where $4 and r.active = 1
), gaps_removed as (
    delete from {schema}.gap g using guard where g.destination = $1 and g.lo = any ($9::int8[])
), gaps_written as (
    insert into {schema}.gap as g (destination, lo, hi, fence, opened_at)
    select $1, n.lo, n.hi, coalesce(n.fence::xid8, pg_current_xact_id()),
           clock_timestamp() - n.age * interval '1 second'
      from guard, unnest($10::int8[], $11::int8[], $12::text[], $13::float8[]) n(lo, hi, fence, age)
        on conflict (destination, lo) do update set hi = excluded.hi, fence = excluded.fence
), deliveries_removed as (
    delete from {schema}.delivery d using guard where d.destination = $1 and d.seq = any ($14::int8[])
), deliveries_written as (
    insert into {schema}.delivery as d (destination, seq, topic, key, state, attempts, next_attempt,
                                        last_error, redelivery, blocks_key)
    select $1, n.* from guard,
           unnest($15::int8[], $16::text[], $17::text[], $18::text[], $19::int4[],
                  $20::timestamptz[], $21::text[], $22::int4[], $23::bool[]) n
        on conflict (destination, seq) do update
           set topic = excluded.topic, key = excluded.key, state = excluded.state,
               attempts = excluded.attempts, next_attempt = excluded.next_attempt,
               last_error = excluded.last_error, redelivery = excluded.redelivery,
               blocks_key = excluded.blocks_key, updated_at = clock_timestamp()
), markers_removed as (
    delete from {schema}.parked_key k
     using guard, unnest($24::text[], $25::text[], $26::int8[]) n(topic, key, from_seq)
     where k.destination = $1 and k.topic = n.topic and k.key = n.key and n.from_seq is null
), markers_written as (
    insert into {schema}.parked_key as k (destination, topic, key, from_seq)
    select $1, n.topic, n.key, n.from_seq
      from guard, unnest($24::text[], $25::text[], $26::int8[]) n(topic, key, from_seq)
     where n.from_seq is not null
        on conflict (destination, topic, key) do update set from_seq = excluded.from_seq
), requests_applied as (
    update {schema}.request r set applied_at = clock_timestamp() from guard
     where r.destination = $1 and r.id = any ($27::int8[]) and r.applied_at is null
), unrouted_counted as (
    insert into {schema}.unrouted as u (topic, count, first, last)
    select n.* from guard, unnest($28::text[], $29::int8[], $30::int8[], $31::int8[]) n
        on conflict (topic) do update
           set count = u.count + excluded.count, first = least(u.first, excluded.first),
               last = greatest(u.last, excluded.last)
)
select pg_current_xact_id()::text from guard
