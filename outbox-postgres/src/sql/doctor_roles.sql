-- Caller: doctor. Locks: none. Index: none.
-- Missing roles; functions that run with more than a role of ours; tables whose rows may be hidden; and
-- whether the relay's role asks for an error rather than hidden rows, and for plans of its own.
select (select string_agg(r, ', ') from unnest(array['outbox_owner', 'outbox_maintainer',
               'outbox_writer', 'outbox_relay', 'outbox_operator', 'outbox_reader']) r
         where not exists (select from pg_roles where rolname = r)),
       (select string_agg(p.proname, ', ' order by p.proname)
          from pg_proc p join pg_roles o on o.oid = p.proowner
         where p.pronamespace = '{schema_in_text}'::regnamespace and p.prosecdef and o.rolcanlogin),
       (select string_agg(c.relname, ', ' order by c.relname) from pg_class c
         where c.relnamespace = '{schema_in_text}'::regnamespace and c.relrowsecurity),
       (select s.setconfig @> array['row_security=off', 'plan_cache_mode=force_custom_plan']
          from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
         where r.rolname = 'outbox_relay' and s.setdatabase = 0),
       (select string_agg(p.proname, ', ' order by p.proname) from pg_proc p
         where p.pronamespace = '{schema_in_text}'::regnamespace and p.prosecdef
           and has_function_privilege('public', p.oid, 'execute'))
