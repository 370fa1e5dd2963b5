-- Caller: doctor. Locks: none. Index: none.
select current_setting('server_version_num')::int, current_setting('server_version'),
       pg_is_in_recovery(), current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
       current_setting('synchronous_commit') <> 'off', current_setting('autovacuum') = 'on',
       current_setting('track_counts') = 'on', clock_timestamp()
