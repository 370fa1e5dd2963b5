-- Caller: Session::open, and a page that found a message which no known route covers. Locks: none.
-- Index: none, a handful of rows.
select destination, pattern, from_seq, to_seq from {schema}.route order by destination, from_seq, id
