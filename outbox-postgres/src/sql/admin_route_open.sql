-- Caller: declare. Locks: none. Index: none. $1 destination, $2 pattern, $3 like, $4 from_seq.
insert into {schema}.route (destination, pattern, like_pattern, from_seq) values ($1, $2, $3, $4)
