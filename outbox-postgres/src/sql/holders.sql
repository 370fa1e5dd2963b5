-- Caller: Session::page, for gaps that xmin did not close. Locks: none (a light lock for each part of
-- the lock table, briefly). Index: none.
-- Who may still commit a seq: every transaction that inserts holds this lock from before nextval to
-- its end. PREPARE TRANSACTION renames the holder to -1/xid.
select distinct virtualtransaction from pg_locks
 where locktype = 'relation' and mode = 'RowExclusiveLock' and granted
   and database = (select oid from pg_database where datname = current_database())
   and relation = '{schema_in_text}.message'::regclass
