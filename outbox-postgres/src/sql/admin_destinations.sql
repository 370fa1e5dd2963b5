-- Caller: request, for its hint; adopt. Locks: none. Index: none, a handful of rows.
select d.name, p.incarnation, p.cursor
  from {schema}.destination d
  left join {schema}.progress p on p.destination = d.name
 order by d.name
