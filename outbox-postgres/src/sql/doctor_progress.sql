-- Caller: doctor. Locks: none. Index: progress_0_pkey and progress_1_pkey.
-- Where each destination's progress was written, and the highest seq it has handed out.
select d.name, p.incarnation, coalesce(p.high_water, 0)
  from {schema}.destination d
  left join {schema}.progress p on p.destination = d.name
 order by d.name
