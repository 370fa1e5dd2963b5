-- Caller: Session::requests, after control_version has moved. Locks: none. Index: request_open_idx.
select id, action, seqs from {schema}.request
 where destination = $1 and applied_at is null order by id limit 100
