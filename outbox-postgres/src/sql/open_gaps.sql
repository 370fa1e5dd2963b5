-- Caller: Session::open. Locks: none. Index: gap_pkey.
select lo, hi, fence::text, greatest(extract(epoch from clock_timestamp() - opened_at), 0)::float8
  from {schema}.gap where destination = $1 order by lo
