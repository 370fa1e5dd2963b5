-- Caller: declare (first row of a new destination), adopt. Locks: none. Index: none.
-- $1 destination, $2 incarnation, $3 cursor. Into either table: readers take the newest id of both.
insert into {schema}.progress_0 (destination, incarnation, epoch, cursor, low_water, high_water)
values ($1, $2, 0, $3, $3, $3)
