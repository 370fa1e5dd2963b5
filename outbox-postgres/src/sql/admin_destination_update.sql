-- Caller: declare, of a known destination that changed. Locks: its row. Index: destination_pkey.
-- $1 name, $2 config, $3 paused. The leader reloads when it sees the new control_version.
update {schema}.destination
   set config = $2, paused = $3, control_version = control_version + 1
 where name = $1
