-- Caller: PostgresStore::check, before a relay starts. Locks: none. Index: none.
select pg_is_in_recovery(),
       row_security_active('{schema_in_text}.message'::regclass) or row_security_active('{schema_in_text}.kept'::regclass)
       or row_security_active('{schema_in_text}.gap'::regclass) or row_security_active('{schema_in_text}.delivery'::regclass),
       (select string_agg(i.inhrelid::regclass::text, ', ') from pg_inherits i
         where i.inhparent = '{schema_in_text}.message'::regclass and i.inhdetachpending),
       s.seqincrement, s.seqcache, s.seqcycle, current_setting('server_version_num')::int
  from pg_sequence s
 where s.seqrelid = '{schema_in_text}.message_seq'::regclass
