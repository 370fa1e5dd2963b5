-- Caller: admin::version. Locks: none. Index: pg_class_relname_nsp_index.
-- Through the catalogue, for to_regclass() fails on a schema that the role may not use.
select has_schema_privilege(n.oid, 'usage'), c.oid is not null
  from pg_namespace n
  left join pg_class c on c.relnamespace = n.oid and c.relname = '_migrations'
 where n.nspname = {schema_literal}
