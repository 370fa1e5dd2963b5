-- Caller: Session::open. Locks: none. Index: delivery_key_idx, parked_key_pkey.
select topic, key, sum(blockers)::int8, sum(parked)::int8, max(marker)
  from (select d.topic, d.key,
               count(*) filter (where d.state = 'retrying' or (d.state = 'dead' and d.blocks_key)) as blockers,
               count(*) filter (where d.state = 'parked') as parked, null::int8 as marker
          from {schema}.delivery d
         where d.destination = $1 and d.key is not null
           and (d.state in ('retrying', 'parked') or (d.state = 'dead' and d.blocks_key))
         group by d.topic, d.key
        union all
        select k.topic, k.key, 0, 0, k.from_seq from {schema}.parked_key k where k.destination = $1) rows
 group by topic, key order by topic, key
