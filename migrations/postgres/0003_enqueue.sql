-- The SQL contract for every language: enqueue, enqueue_bytes, enqueue_many, enqueue_many_bytes,
-- accept. Stable; documented in docs/sql.md.
--
-- Each function checks every limit of outbox_core::limits before anything is written, and names
-- the field, its size and the limit in the error (SQLSTATE 22023). They run as their owner, with
-- search_path pinned, because writers hold no right on the tables and so cannot name xid or seq.
-- PL/pgSQL, not SQL: it keeps its plans for the session, a SQL function plans at each call. The
-- check of the topic is a search for a foreign character: ^[…]{1,249}$ says the same and costs 17 µs.

-- A UUIDv7: 48 bits of milliseconds, then random. (gen_random_uuid makes version 4 = 0100; the two
-- low bits of that nibble become 11.) PostgreSQL 18 has its own, which 15 to 17 lack.
create function {schema}.uuid_v7() returns uuid
language sql volatile parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6),
            52, 1), 53, 1), 'hex')::uuid
$$;

-- The first thing wrong with these headers, or NULL.
create function {schema}.headers_problem(headers jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    entry record;
    entries int := 0;
    bytes int := 0;
begin
    if headers is null then
        return null;
    end if;
    if jsonb_typeof(headers) <> 'object' then
        return format('headers is a JSON %s: give an object of names and texts', jsonb_typeof(headers));
    end if;
    for entry in select h.key as name, h.value as value from jsonb_each(headers) h loop
        entries := entries + 1;
        if entry.name collate "C" !~ '^[!-~]+$' then
            return format('header name %s must be printable ASCII without spaces, and not empty',
                          to_json(entry.name));
        end if;
        if jsonb_typeof(entry.value) <> 'string' then
            return format('header %s is a JSON %s: give a text', to_json(entry.name),
                          jsonb_typeof(entry.value));
        end if;
        bytes := bytes + octet_length(entry.name) + octet_length(entry.value #>> '{}');
    end loop;
    if entries > 64 then
        return format('headers: %s of them, the limit is 64', entries);
    end if;
    if bytes > 16384 then
        return format('headers is %s bytes long, the limit is 16384', bytes);
    end if;
    return null;
end
$$;

-- The first thing wrong with this message, or NULL. Slow and thorough: called only for a message that
-- failed the one-expression check of the enqueue functions, to say why.
create function {schema}.message_problem(
    topic text, key text, payload bytea, content_type text, headers jsonb,
    deliver_after timestamptz, expires_at timestamptz
) returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    at int;
begin
    if topic is null then
        return 'topic is null: give one';
    elsif topic = '' then
        return 'topic is empty: give at least one character, or leave it out';
    elsif octet_length(topic) > 249 then
        return format('topic is %s bytes long, the limit is 249', octet_length(topic));
    elsif topic collate "C" ~ '[^A-Za-z0-9._-]' then
        at := length(substring(topic collate "C" from '^[A-Za-z0-9._-]*'));
        return format('topic %s has %s at byte %s: allowed are A-Z a-z 0-9 . _ -', to_json(topic),
                      quote_literal(substring(topic from at + 1 for 1)), at);
    elsif key = '' then
        return 'key is empty: give at least one character, or leave it out';
    elsif octet_length(key) > 512 then
        return format('key is %s bytes long, the limit is 512', octet_length(key));
    elsif payload is null then
        return 'payload is null: give one (an empty one is allowed)';
    elsif octet_length(payload) > 1048576 then
        return format('payload is %s bytes long, the limit is 1048576', octet_length(payload));
    elsif content_type = '' then
        return 'content_type is empty: give at least one character, or leave it out';
    elsif octet_length(content_type) > 127 then
        return format('content_type is %s bytes long, the limit is 127', octet_length(content_type));
    elsif deliver_after >= timestamptz '10000-01-01 00:00+00' or not isfinite(deliver_after) then
        return format('deliver_after is %s: give a time before the year 10000', deliver_after);
    elsif expires_at >= timestamptz '10000-01-01 00:00+00' or not isfinite(expires_at) then
        return format('expires_at is %s: give a time before the year 10000', expires_at);
    elsif expires_at <= deliver_after then
        return format('expires_at %s is not after deliver_after %s: it could never be delivered',
                      expires_at, deliver_after);
    end if;
    return {schema}.headers_problem(headers);
end
$$;

create function {schema}.refuse(problem text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using errcode = '22023', message = coalesce(problem, 'the message breaks a limit'),
        hint = 'Nothing was written.';
end
$$;

-- The lock that gives a strict topic its total order for each key. 64 bits of hash: two keys that
-- collide wait for each other, and nothing worse.
create function {schema}.key_lock(topic text, key text) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select hashtextextended({schema_literal} || ' ' || topic || ' ' || key, 0)
$$;

-- One message with any payload.
create function {schema}.enqueue_bytes(
    topic text, payload bytea, content_type text, key text default null,
    headers jsonb default '{}', deliver_after timestamptz default null,
    expires_at timestamptz default null, id uuid default null
) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if headers = '{}' then
        headers := null;
    end if;
    if (octet_length(topic) between 1 and 249 and topic collate "C" !~ '[^A-Za-z0-9._-]'
        and (key is null or octet_length(key) between 1 and 512)
        and octet_length(payload) <= 1048576
        and (content_type is null or octet_length(content_type) between 1 and 127)
        and headers is null and deliver_after is null and expires_at is null) is not true
       and {schema}.message_problem(topic, key, payload, content_type, headers, deliver_after, expires_at)
           is not null
    then
        perform {schema}.refuse({schema}.message_problem(topic, key, payload, content_type, headers,
                                                         deliver_after, expires_at));
    end if;
    -- Before the seq is taken: the lock is what orders the seqs of a strict key.
    if key is not null
       and exists (select from {schema}.topic t where t.name = enqueue_bytes.topic and t.strict)
    then
        perform pg_advisory_xact_lock({schema}.key_lock(topic, key));
    end if;
    -- {schema}.uuid_v7() written out: a call of it costs more than the rest of this line.
    id := coalesce(id, encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
        from 1 for 6), 52, 1), 53, 1), 'hex')::uuid);
    insert into {schema}.message
        (id, topic, key, payload, content_type, headers, deliver_after, expires_at)
    values
        (id, topic, key, payload, nullif(content_type, 'application/json'), headers,
         deliver_after, expires_at);
    return id;
end
$$;

-- One message with a JSON payload.
create function {schema}.enqueue(
    topic text, payload jsonb, key text default null,
    headers jsonb default '{}', deliver_after timestamptz default null,
    expires_at timestamptz default null, id uuid default null
) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    body bytea := convert_to(payload::text, 'UTF8');
begin
    -- The same as enqueue_bytes, written out: a nested call costs as much as the insert.
    if headers = '{}' then
        headers := null;
    end if;
    if (octet_length(topic) between 1 and 249 and topic collate "C" !~ '[^A-Za-z0-9._-]'
        and (key is null or octet_length(key) between 1 and 512)
        and octet_length(body) <= 1048576
        and headers is null and deliver_after is null and expires_at is null) is not true
       and {schema}.message_problem(topic, key, body, null, headers, deliver_after, expires_at)
           is not null
    then
        perform {schema}.refuse({schema}.message_problem(topic, key, body, null, headers,
                                                         deliver_after, expires_at));
    end if;
    if key is not null
       and exists (select from {schema}.topic t where t.name = enqueue.topic and t.strict)
    then
        perform pg_advisory_xact_lock({schema}.key_lock(topic, key));
    end if;
    -- {schema}.uuid_v7() written out: a call of it costs more than the rest of this line.
    id := coalesce(id, encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
        from 1 for 6), 52, 1), 53, 1), 'hex')::uuid);
    insert into {schema}.message (id, topic, key, payload, headers, deliver_after, expires_at)
    values (id, topic, key, body, headers, deliver_after, expires_at);
    return id;
end
$$;

-- Many messages in the order of the arrays, which must be of one length (or NULL: nothing given).
-- All or none: a problem names the place of its message, counted from 1.
create function {schema}.enqueue_many_bytes(
    topics text[], payloads bytea[], content_types text[] default null, keys text[] default null,
    headers jsonb[] default null, deliver_after timestamptz[] default null,
    expires_at timestamptz[] default null, ids uuid[] default null
) returns uuid[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    count constant int := coalesce(cardinality(topics), 0);
    place bigint;
    problem text;
begin
    if coalesce(cardinality(payloads), 0) <> count
       or cardinality(content_types) <> count or cardinality(keys) <> count
       or cardinality(headers) <> count or cardinality(deliver_after) <> count
       or cardinality(expires_at) <> count or cardinality(ids) <> count
    then
        perform {schema}.refuse(format('the arrays differ in length: %s topics, %s payloads, '
            '%s content_types, %s keys, %s headers, %s deliver_after, %s expires_at, %s ids',
            count, cardinality(payloads), cardinality(content_types), cardinality(keys),
            cardinality(headers), cardinality(deliver_after), cardinality(expires_at),
            cardinality(ids)));
    end if;
    if count = 0 then
        return '{}';
    end if;

    select m.ord, {schema}.message_problem(m.t, m.k, m.p, m.c, m.h, m.d, m.e)
      into place, problem
      from unnest(topics, payloads, content_types, keys, headers, deliver_after, expires_at)
           with ordinality m(t, p, c, k, h, d, e, ord)
     where (octet_length(m.t) between 1 and 249 and m.t collate "C" !~ '[^A-Za-z0-9._-]'
            and (m.k is null or octet_length(m.k) between 1 and 512)
            and octet_length(m.p) <= 1048576
            and (m.c is null or octet_length(m.c) between 1 and 127)
            and (m.h is null or m.h = '{}') and m.d is null and m.e is null) is not true
       and {schema}.message_problem(m.t, m.k, m.p, m.c, m.h, m.d, m.e) is not null
     order by m.ord limit 1;
    if problem is not null then
        perform {schema}.refuse(format('message %s: %s', place, problem));
    end if;

    if keys is not null and exists (select from {schema}.topic t where t.strict) then
        -- Sorted, so that two batches with the same keys cannot deadlock.
        perform pg_advisory_xact_lock(locks.hash)
           from (select distinct {schema}.key_lock(m.t, m.k) as hash
                   from unnest(topics, keys) m(t, k)
                   join {schema}.topic s on s.name = m.t and s.strict
                  where m.k is not null
                  order by 1) locks;
    end if;

    ids := array(select coalesce(m.id, {schema}.uuid_v7())
                   from unnest(ids, topics) with ordinality m(id, t, ord) order by m.ord);
    insert into {schema}.message
        (id, topic, key, payload, content_type, headers, deliver_after, expires_at)
    select m.id, m.t, m.k, m.p, nullif(m.c, 'application/json'), nullif(m.h, '{}'), m.d, m.e
      from unnest(ids, topics, keys, payloads, content_types, headers, deliver_after, expires_at)
           with ordinality m(id, t, k, p, c, h, d, e, ord)
     order by m.ord;
    return ids;
end
$$;

-- Many messages with JSON payloads: an array of objects with the argument names of enqueue,
-- e.g. [{"topic": "orders.placed", "key": "42", "payload": {"id": 42}}]. All or none.
create function {schema}.enqueue_many(messages jsonb) returns uuid[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    problem text;
begin
    if jsonb_typeof(messages) is distinct from 'array' then
        perform {schema}.refuse(format('messages is %s: give a JSON array of objects',
            coalesce('a JSON ' || jsonb_typeof(messages), 'null')));
    end if;
    select format('message %s: %s', m.ord,
               case when jsonb_typeof(m.v) <> 'object' then
                   format('is a JSON %s: give an object', jsonb_typeof(m.v))
               else
                   format('unknown field %s: known are topic, payload, key, headers, '
                          'deliver_after, expires_at, id', to_json(f.name))
               end)
      into problem
      from jsonb_array_elements(messages) with ordinality m(v, ord)
      left join lateral (
           select k as name
             from jsonb_object_keys(case when jsonb_typeof(m.v) = 'object' then m.v else '{}' end) k
            where k <> all (array['topic', 'payload', 'key', 'headers', 'deliver_after',
                                  'expires_at', 'id'])
            limit 1) f on true
     where jsonb_typeof(m.v) <> 'object' or f.name is not null
     order by m.ord limit 1;
    if problem is not null then
        perform {schema}.refuse(problem);
    end if;
    return (
        select {schema}.enqueue_many_bytes(
                   array_agg(m.v ->> 'topic' order by m.ord),
                   array_agg(convert_to((m.v -> 'payload')::text, 'UTF8') order by m.ord),
                   null,
                   array_agg(m.v ->> 'key' order by m.ord),
                   array_agg(nullif(m.v -> 'headers', 'null') order by m.ord),
                   array_agg((m.v ->> 'deliver_after')::timestamptz order by m.ord),
                   array_agg((m.v ->> 'expires_at')::timestamptz order by m.ord),
                   array_agg((m.v ->> 'id')::uuid order by m.ord))
          from jsonb_array_elements(messages) with ordinality m(v, ord));
end
$$;

-- Marks a message as applied by a consumer, in the consumer's own transaction: true the first time,
-- false when it already was. Waits for a concurrent transaction that accepts the same id.
create function {schema}.accept(consumer text, message_id uuid) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (octet_length(consumer) between 1 and 63) is not true then
        perform {schema}.refuse(format('consumer is %s bytes long, the limits are 1 and 63',
            coalesce(octet_length(consumer)::text, 'null, not 1 to 63')));
    end if;
    if message_id is null then
        perform {schema}.refuse('message_id is null: give the id of the message');
    end if;
    insert into {schema}.inbox (consumer, message_id) values (consumer, message_id)
        on conflict on constraint inbox_pkey do nothing;
    return found;
end
$$;

-- Rights: a fresh function is open to PUBLIC, so each is closed first.
do $$
declare
    f regprocedure;
    call text;
begin
    for f in select p.oid::regprocedure from pg_proc p
              where p.pronamespace = '{schema_in_text}'::regnamespace
    loop
        execute format('revoke all on function %s from public', f);
    end loop;
    foreach call in array array[
        'enqueue(text, jsonb, text, jsonb, timestamptz, timestamptz, uuid)',
        'enqueue_bytes(text, bytea, text, text, jsonb, timestamptz, timestamptz, uuid)',
        'enqueue_many(jsonb)',
        'enqueue_many_bytes(text[], bytea[], text[], text[], jsonb[], timestamptz[], timestamptz[], uuid[])',
        'accept(text, uuid)']
    loop
        perform {schema}.grant_if('outbox_writer',
            'execute on function {schema_in_text}.' || call);
        perform {schema}.own(call);
    end loop;
    foreach call in array array['uuid_v7()', 'headers_problem(jsonb)', 'refuse(text)',
        'message_problem(text, text, bytea, text, jsonb, timestamptz, timestamptz)',
        'key_lock(text, text)']
    loop
        perform {schema}.grant_if('outbox_owner', 'execute on function {schema_in_text}.' || call);
    end loop;
end
$$;
