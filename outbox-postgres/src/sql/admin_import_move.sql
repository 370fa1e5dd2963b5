-- Caller: import. Locks: the source's row, so that of two importers one waits. Index: import_pkey.
-- $1 source, $2 from, $3 to. No row is the position 0.
insert into {schema}.import as i (source, position) select $1, $3 where $2 = 0
       or exists (select from {schema}.import e where e.source = $1)
    on conflict (source) do update set position = $3 where i.position = $2
