-- A cheaper way in for the library: `insert into outgoing (…) values (…)` as the service's own
-- prepared statement.
--
-- outgoing holds nothing and nobody reads it. Its rule turns an insert into one of the log, under
-- the same checks and behind the same lock as the enqueue functions. A rule is a parsed statement: its
-- names were resolved when it was created, whatever the caller's search_path says, and its tables
-- are used with the rights of the view's owner, so that a writer still holds no right on a table
-- and can name neither xid nor seq. The server plans it once for each session, as part of the
-- caller's statement. A function that runs with its owner's rights under a pinned path instead sets up
-- and checks all of that at each call, which cost twice the insert.
--
-- The condition is evaluated before the row is: a strict key is locked before the seq is taken,
-- and a message that breaks a limit takes none.

-- True, or the error that says what is wrong. For a message that failed the rule's own quick check.
create function {schema}.check_outgoing(
    topic text, key text, payload bytea, content_type text, headers jsonb,
    deliver_after timestamptz, expires_at timestamptz
) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    problem constant text := {schema}.message_problem(topic, key, payload, content_type, headers,
                                                      deliver_after, expires_at);
begin
    if problem is not null then
        perform {schema}.refuse(problem);
    end if;
    return true;
end
$$;

-- True, once the lock of a strict key is held.
create function {schema}.lock_outgoing(topic text, key text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock({schema}.key_lock(topic, key));
    return true;
end
$$;

create view {schema}.outgoing as
    select null::uuid as id, null::text as topic, null::text as key, null::bytea as payload,
           null::text as content_type, null::jsonb as headers,
           null::timestamptz as deliver_after, null::timestamptz as expires_at
     where false;

comment on view {schema}.outgoing is
    'Where the Rust library enqueues. Always empty: a rule writes what is inserted to the log.';

create rule enqueue as on insert to {schema}.outgoing do instead
    insert into {schema}.message
        (id, topic, key, payload, content_type, headers, deliver_after, expires_at)
    select new.id, new.topic, new.key, new.payload, nullif(new.content_type, 'application/json'),
           nullif(new.headers, '{}'), new.deliver_after, new.expires_at
     where case
               when octet_length(new.topic) between 1 and 249
                    and new.topic collate "C" !~ '[^A-Za-z0-9._-]'
                    and (new.key is null or octet_length(new.key) between 1 and 512)
                    and octet_length(new.payload) <= 1048576
                    and (new.content_type is null
                         or octet_length(new.content_type) between 1 and 127)
                    and new.headers is null and new.deliver_after is null
                    and new.expires_at is null
               then true
               else {schema}.check_outgoing(new.topic, new.key, new.payload, new.content_type,
                                            new.headers, new.deliver_after, new.expires_at)
           end
       and case
               when new.key is not null
                    and exists (select from {schema}.topic t
                                 where t.name = new.topic collate "C" and t.strict)
               then {schema}.lock_outgoing(new.topic, new.key)
               else true
           end;

do $$
declare
    call text;
begin
    foreach call in array array[
        'check_outgoing(text, text, bytea, text, jsonb, timestamptz, timestamptz)',
        'lock_outgoing(text, text)']
    loop
        execute format('revoke all on function {schema_in_text}.%s from public', call);
        perform {schema}.grant_if('outbox_writer',
            'execute on function {schema_in_text}.' || call);
        perform {schema}.own(call);
    end loop;
    perform {schema}.grant_if('outbox_writer', 'insert on {schema_in_text}.outgoing');
    -- As in own(): left to whoever migrates when that role is missing or may not be acted for.
    begin
        if exists (select from pg_roles where rolname = 'outbox_owner') then
            alter view {schema}.outgoing owner to outbox_owner;
        end if;
    exception
        when insufficient_privilege then
            raise notice 'view outgoing stays with %', current_user;
    end;
end
$$;
