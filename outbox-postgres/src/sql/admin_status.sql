-- Caller: status. Locks: none. Index: primary keys; delivery is counted whole, and small.
-- $1 last seq. The rate is that of the last hundred settles, 0 once the newest is 10 s old.
select d.name, d.config ->> 'broker', d.paused, l.owner, coalesce(l.epoch, 0), coalesce(p.cursor, 0),
       coalesce((select array_agg(r.pattern order by r.id) from {schema}.route r
                  where r.destination = d.name and r.to_seq is null), '{}'),
       (select extract(epoch from clock_timestamp() - m.created_at)::float8 from {schema}.message m
         where m.seq > coalesce(p.cursor, 0) and m.seq <= $1 order by m.seq limit 1),
       coalesce(s.rate, 0)::float8,
       (select count(*) from {schema}.gap g where g.destination = d.name),
       (select count(*) from {schema}.parked_key k where k.destination = d.name),
       e.retrying, e.parked, e.scheduled, e.dead, e.expired
  from {schema}.destination d
  left join {schema}.lease l on l.destination = d.name
  left join {schema}.progress p on p.destination = d.name
 cross join lateral (
       select count(*) filter (where state = 'retrying') as retrying,
              count(*) filter (where state = 'parked') as parked,
              count(*) filter (where state = 'scheduled') as scheduled,
              count(*) filter (where state = 'dead') as dead,
              count(*) filter (where state = 'expired') as expired
         from {schema}.delivery where destination = d.name) e
 cross join lateral (
       select (max(n.cursor) - min(n.cursor))
              / nullif(extract(epoch from max(n.settled_at) - min(n.settled_at)), 0) as rate
         from (select * from (
                   (select a.id, a.cursor, a.settled_at from {schema}.progress_0 a
                     where a.destination = d.name order by a.id desc limit 100)
                   union all
                   (select b.id, b.cursor, b.settled_at from {schema}.progress_1 b
                     where b.destination = d.name order by b.id desc limit 100)) both_tables
                order by id desc limit 100) n
       having max(n.settled_at) > clock_timestamp() - interval '10 seconds'
       union all
       select 0
        limit 1) s
 order by d.name
