-- Caller: Incarnation::read, once for each session. Locks: none. Index: none.
-- The timeline comes from the name of the WAL file being written: pg_control_checkpoint() still
-- shows the old one for a while after a promotion. Fails in recovery, where nothing may publish.
select 'pg-' || (select system_identifier from pg_control_system())
    || '-' || ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
    || '-' || (select oid from pg_database where datname = current_database())
