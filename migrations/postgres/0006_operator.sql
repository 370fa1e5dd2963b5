-- The operator: sees what a reader sees, and decides. It declares destinations, asks for resends,
-- adopts a copy and enqueues files (docs/operations.md). It cannot change or remove a message, move a
-- cursor that exists, or drop anything: what it asks of a destination the leading relay does.
do $$
declare
    t text;
    call text;
begin
    perform {schema}.ensure_role('outbox_operator');
    perform {schema}.grant_if('outbox_operator', 'usage on schema {schema_in_text}');
    foreach t in array array['message', 'kept', 'topic', 'destination', 'route', 'relay', 'lease',
        'progress_0', 'progress_1', 'progress', 'rotation', 'gap', 'delivery', 'parked_key',
        'request', 'unrouted', 'import', 'inbox', '_migrations', 'message_seq']
    loop
        perform {schema}.grant_if('outbox_operator', format('select on {schema_in_text}.%I', t));
    end loop;

    -- Requests: a row, and the version that tells the leader of it.
    perform {schema}.grant_if('outbox_operator', 'insert on {schema_in_text}.request');
    -- Declarations. The lock on the leases is SELECT FOR UPDATE, which needs UPDATE; a change of
    -- routes voids what sessions have read ahead (route_changed).
    perform {schema}.grant_if('outbox_operator',
        'insert, update (config, paused, control_version) on {schema_in_text}.destination');
    perform {schema}.grant_if('outbox_operator', 'insert, update (to_seq) on {schema_in_text}.route');
    perform {schema}.grant_if('outbox_operator', 'insert, update (owner, route_version) on {schema_in_text}.lease');
    perform {schema}.grant_if('outbox_operator', 'insert on {schema_in_text}.progress_0');
    perform {schema}.grant_if('outbox_operator', 'usage, select on sequence {schema_in_text}.progress_id');
    -- Adoption: fences of another cluster mean nothing here.
    perform {schema}.grant_if('outbox_operator', 'update (fence) on {schema_in_text}.gap');
    -- Files: the position moves in the transaction that enqueues.
    perform {schema}.grant_if('outbox_operator', 'insert on {schema_in_text}.outgoing');
    perform {schema}.grant_if('outbox_operator', 'insert, update (position) on {schema_in_text}.import');
    foreach call in array array[
        'enqueue(text, jsonb, text, jsonb, timestamptz, timestamptz, uuid)',
        'enqueue_bytes(text, bytea, text, text, jsonb, timestamptz, timestamptz, uuid)',
        'enqueue_many(jsonb)',
        'enqueue_many_bytes(text[], bytea[], text[], text[], jsonb[], timestamptz[], timestamptz[], uuid[])',
        'check_outgoing(text, text, bytea, text, jsonb, timestamptz, timestamptz)',
        'lock_outgoing(text, text)', 'partitions()', 'default_rows()', 'seq_at(timestamptz)']
    loop
        perform {schema}.grant_if('outbox_operator', 'execute on function {schema_in_text}.' || call);
    end loop;
end
$$;
