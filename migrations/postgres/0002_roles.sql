-- Three group roles, and one that owns the functions. Roles belong to the cluster: two schemas, or two
-- databases, share them. Grant them to your login roles: grant outbox_writer to shop;
--
-- Without CREATEROLE the roles are not made; say so, and go on: the functions then belong to
-- whoever migrates, and the grants below are skipped. Create the roles and run
-- `outbox migrate` again with --roles, or grant by hand what stands here.
create function {schema}.ensure_role(name text) returns void
language plpgsql as $$
begin
    if not exists (select from pg_roles where rolname = name) then
        execute format('create role %I nologin', name);
    end if;
exception
    when insufficient_privilege then
        raise notice 'role % is missing and % may not create it', name, current_user;
    when duplicate_object or unique_violation then
        null; -- Another database of the cluster was faster.
end
$$;

-- Gives a SECURITY DEFINER function to outbox_owner, so that it can do no more than that role. Left to
-- whoever migrates when that role is missing or may not be acted for.
create function {schema}.own(call text) returns void
language plpgsql as $$
begin
    if exists (select from pg_roles where rolname = 'outbox_owner') then
        execute format('alter function {schema_in_text}.%s owner to outbox_owner', call);
    end if;
exception
    when insufficient_privilege then
        raise notice 'function % stays with %', call, current_user;
end
$$;

-- Runs a grant unless its role is missing.
create function {schema}.grant_if(role text, what text) returns void
language plpgsql as $$
begin
    if exists (select from pg_roles where rolname = role) then
        execute format('grant %s to %I', what, role);
    end if;
end
$$;

do $$
begin
    perform {schema}.ensure_role(r)
       from unnest(array['outbox_owner', 'outbox_writer', 'outbox_relay', 'outbox_reader']) r;
    -- Invisible means lost: the relay would rather fail than be shown only some of the rows. A login
    -- role does not inherit these, so each session sets them again.
    if exists (select from pg_roles where rolname = 'outbox_relay') then
        alter role outbox_relay set row_security = off;
        alter role outbox_relay set plan_cache_mode = force_custom_plan;
        alter role outbox_relay set default_transaction_isolation = 'read committed';
    end if;
exception
    when insufficient_privilege then
        raise notice 'the settings of role outbox_relay were left as they are';
end
$$;

do $$
declare
    t text;
begin
    perform {schema}.grant_if(r, 'usage on schema {schema_in_text}')
       from unnest(array['outbox_owner', 'outbox_writer', 'outbox_relay', 'outbox_reader']) r;

    -- The functions' owner: what enqueue and accept do, and no more.
    perform {schema}.grant_if('outbox_owner', 'create on schema {schema_in_text}');
    perform {schema}.grant_if('outbox_owner', 'insert on {schema_in_text}.message');
    perform {schema}.grant_if('outbox_owner', 'select on {schema_in_text}.topic');
    perform {schema}.grant_if('outbox_owner', 'select, insert on {schema_in_text}.inbox');

    -- Readers see everything but payloads of consumers' dead letters, and change nothing.
    foreach t in array array['message', 'kept', 'topic', 'destination', 'route', 'relay', 'lease',
        'progress_0', 'progress_1', 'progress', 'rotation', 'gap', 'delivery', 'parked_key',
        'request', 'unrouted', 'import', '_migrations']
    loop
        perform {schema}.grant_if('outbox_reader', format('select on {schema_in_text}.%I', t));
        perform {schema}.grant_if('outbox_relay', format('select on {schema_in_text}.%I', t));
    end loop;
    perform {schema}.grant_if('outbox_reader', 'select on sequence {schema_in_text}.message_seq');
    perform {schema}.grant_if('outbox_relay', 'select on sequence {schema_in_text}.message_seq');
    perform {schema}.grant_if('outbox_relay', 'usage, select on sequence {schema_in_text}.progress_id');

    -- The relay writes everything about deliveries, and nothing of messages.
    perform {schema}.grant_if('outbox_relay', 'insert on {schema_in_text}.progress_0');
    perform {schema}.grant_if('outbox_relay', 'insert on {schema_in_text}.progress_1');
    -- FOR SHARE needs UPDATE.
    perform {schema}.grant_if('outbox_relay', 'insert, update on {schema_in_text}.lease');
    foreach t in array array['relay', 'gap', 'delivery', 'parked_key', 'unrouted', 'session']
    loop
        perform {schema}.grant_if('outbox_relay',
            format('select, insert, update, delete on {schema_in_text}.%I', t));
    end loop;
    perform {schema}.grant_if('outbox_relay', 'update (applied_at) on {schema_in_text}.request');
    perform {schema}.grant_if('outbox_reader', 'select on {schema_in_text}.inbox');
end
$$;
