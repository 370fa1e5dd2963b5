-- Caller: Session::open, first of all. Locks: none. Index: primary keys.
-- control_version is read before what it stands for, so that a later change is noticed.
-- counts: the destination that was created first counts what no route covers.
select l.owner, l.epoch, l.route_version, d.control_version, d.config, d.paused,
       d.id = (select min(id) from {schema}.destination) as counts,
       (select case when is_called then last_value else 0 end from {schema}.message_seq) as last_seq,
       p.incarnation, p.cursor, p.high_water,
       least(p.cursor + 1,
             (select min(g.lo) from {schema}.gap g where g.destination = d.name),
             (select min(k.from_seq) from {schema}.parked_key k where k.destination = d.name),
             (select min(w.seq) from {schema}.delivery w where w.destination = d.name
                 and w.state in ('retrying', 'parked', 'scheduled'))) as low_water,
       (select count(*) from {schema}.delivery w where w.destination = d.name
           and w.next_attempt is not null) as waiting
  from {schema}.destination d
  left join {schema}.lease l on l.destination = d.name
  left join {schema}.progress p on p.destination = d.name
 where d.name = $1
