-- Caller: message. Locks: none. Index: none on id: it scans the stretch that it is given.
-- $1 id, $2 and $3 the stretch, both ends included.
select seq, id, topic, key, coalesce(content_type, 'application/json'), headers, payload, created_at
  from {schema}.message where id = $1 and seq between $2 and $3
union all
select seq, id, topic, key, coalesce(content_type, 'application/json'), headers, payload, created_at
  from {schema}.kept where id = $1
 limit 1
