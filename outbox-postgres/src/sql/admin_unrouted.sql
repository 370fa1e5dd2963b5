-- Caller: status. Locks: none. Index: none, one row for each mistyped topic.
select topic, count, first, last from {schema}.unrouted order by topic
