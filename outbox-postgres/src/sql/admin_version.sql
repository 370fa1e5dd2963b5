-- Caller: admin::version. Locks: none. Index: none, a handful of rows.
-- Only after admin_has_version said that the table is there.
select coalesce(max(version), 0), coalesce(bool_and(success), true) from {schema}._migrations
