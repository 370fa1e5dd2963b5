-- Caller: declare. Locks: the route's row. Index: route_destination_idx.
-- $1 destination, $2 pattern, $3 the last seq that it still covers.
update {schema}.route set to_seq = $3 where destination = $1 and pattern = $2 and to_seq is null
