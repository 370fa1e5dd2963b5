-- House-keeping (docs/retention.md). The relay's role may execute these functions and nothing
-- behind them: attaching and dropping partitions takes the owner of the log.
--
-- Each call is one step and one short transaction. No step waits for a lock longer than 50 ms, for
-- whoever queues behind it waits as long; one that times out (SQLSTATE 55P03) is tried again in the
-- next round. An advisory lock of the transaction lets one maintainer work at a time: it is gone
-- with the transaction, behind a transaction-mode pooler as well.
--
-- Everything is read under READ COMMITTED, after the lock was taken: a snapshot from before it
-- would miss what was written while waiting.

do $$
declare
    t text;
begin
    perform {schema}.ensure_role('outbox_maintainer');
    perform {schema}.grant_if('outbox_maintainer', 'usage, create on schema {schema_in_text}');
    foreach t in array array['destination', 'progress', 'gap', 'parked_key', 'delivery', 'lease'] loop
        perform {schema}.grant_if('outbox_maintainer', format('select on {schema_in_text}.%I', t));
    end loop;
    foreach t in array array['request', 'relay'] loop
        perform {schema}.grant_if('outbox_maintainer',
            format('select, delete on {schema_in_text}.%I', t));
    end loop;
    foreach t in array array['progress_0', 'progress_1'] loop
        perform {schema}.grant_if('outbox_maintainer',
            format('select, insert, truncate on {schema_in_text}.%I', t));
    end loop;
    perform {schema}.grant_if('outbox_maintainer', 'select, insert, delete on {schema_in_text}.kept');
    perform {schema}.grant_if('outbox_maintainer', 'select, update on {schema_in_text}.rotation');
end
$$;

-- The partitions of the log, with lo included and hi not; both are NULL for the default partition.
-- detaching: left over from a DETACH CONCURRENTLY that did not finish; its rows are invisible.
create function {schema}.partitions()
returns table (name text, oid oid, lo bigint, hi bigint, is_default boolean, detaching boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select c.relname::text, c.oid, b.bound[1]::bigint, b.bound[2]::bigint, b.bound is null,
           i.inhdetachpending
      from pg_inherits i
      join pg_class c on c.oid = i.inhrelid
     cross join lateral (select regexp_match(pg_get_expr(c.relpartbound, c.oid),
           '^FOR VALUES FROM \(''?(-?\d+)''?\) TO \(''?(-?\d+)''?\)$')) b(bound)
     where i.inhparent = '{schema_in_text}.message'::regclass
$$;

-- The lowest seq that some destination may still read from the log itself: everything above its
-- cursor, its open gaps, and the followers of its markers. What has a delivery row does not count,
-- for that is copied aside. 0, so that nothing goes, while a destination never started or none is
-- declared.
create function {schema}.retention_floor() returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(min(least(coalesce(p.cursor + 1, 0), g.lo, k.from_seq)), 0)
      from {schema}.destination d
      left join {schema}.progress p on p.destination = d.name
      left join lateral (select min(gap.lo) as lo from {schema}.gap
                          where gap.destination = d.name) g on true
      left join lateral (select min(parked_key.from_seq) as from_seq from {schema}.parked_key
                          where parked_key.destination = d.name) k on true
$$;

-- Seqs whose message must outlive its partition: somebody has a delivery row for it, or asked for it.
create function {schema}.wanted_seqs() returns table (seq bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select d.seq from {schema}.delivery d
    union
    select unnest(r.seqs) from {schema}.request r where r.applied_at is null
$$;

-- The first seq whose message was created at that time or later, or the next one to come. By halves, for
-- created_at grows with seq: it is taken beside it, so the two differ by no more than the writers'
-- concurrency (and by what the server's clock was set back). Callers allow some seconds.
create function {schema}.seq_at(at timestamptz) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    lo bigint := 1;
    hi bigint;
    middle bigint;
    found record;
begin
    select s.last_value + 1 into hi from {schema}.message_seq s;
    while lo < hi loop
        middle := lo + (hi - lo) / 2;
        select m.seq, m.created_at into found from {schema}.message m
         where m.seq >= middle and m.seq < hi order by m.seq limit 1;
        if found.seq is null or found.created_at >= at then
            hi := middle;
        else
            lo := found.seq + 1;
        end if;
    end loop;
    return lo;
end
$$;

-- True when this transaction is the one maintainer of the schema.
create function {schema}.maintain_begin() returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using errcode = '25000',
            message = format('house-keeping needs read committed, this transaction is %s',
                             current_setting('transaction_isolation'));
    end if;
    return pg_try_advisory_xact_lock(hashtextextended({schema_literal} || ' maintenance', 0));
end
$$;

-- Attaches one partition ahead of the sequence; answers its name, or NULL when enough are there.
--
-- ATTACH lets inserts go on; it locks only the default partition, which is empty as a rule. When
-- rows fell into that one, because nobody attached in time, the next partition starts some way
-- ahead, so that running inserts do not reach it while it is attached; the stretch between stays
-- in the default partition until its retention is over.
create function {schema}.maintain_attach() returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set row_security = off
as $$
declare
    width_min constant bigint := 1000000;
    ahead_min constant int := 8;
    head_start constant bigint := 100000;
    last_seq bigint;
    bound bigint;
    passed int;
    width bigint;
    partition text;
begin
    if not {schema}.maintain_begin() then
        return null;
    end if;
    select s.last_value into last_seq from {schema}.message_seq s;
    select coalesce(max(p.hi), 1), count(*) filter (where p.hi <= last_seq)
      into bound, passed
      from {schema}.partitions() p;
    -- The more are retained the wider the next: a busy log keeps a few hundred, not thousands.
    width := width_min * (1 << least(passed / 50, 10));
    if bound > last_seq + width * ahead_min then
        return null;
    end if;
    if bound <= last_seq then
        bound := last_seq + head_start;
    end if;
    partition := 'message_p' || bound;
    execute format('create table %I.%I (like {schema_in_text}.message including all excluding identity)',
                   {schema_literal}, partition);
    execute format('alter table {schema_in_text}.message attach partition %I.%I for values from (%s) to (%s)',
                   {schema_literal}, partition, bound, bound + width);
    return partition;
end
$$;

-- Empties the oldest partition that is older than the retention and that nobody reads any more,
-- copying aside what must outlive it; answers NULLs when there is none.
--
-- The lock on that one partition comes first: a transaction that inserted there and is still open
-- holds it too, so a message is never removed before it could be seen.
create function {schema}.maintain_empty(retention interval, out partition text, out kept bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set row_security = off
as $$
declare
    candidate record;
begin
    if retention is null or retention < interval '0' then
        raise exception using errcode = '22023',
            message = format('retention is %s: give an interval of at least 0',
                             coalesce(retention::text, 'null'));
    end if;
    if not {schema}.maintain_begin() then
        return;
    end if;
    for candidate in
        select p.name from {schema}.partitions() p
         where not p.detaching and (p.is_default or p.hi <= {schema}.retention_floor())
         order by p.lo nulls last
    loop
        continue when not {schema}.may_empty(candidate.name, retention);
        execute format('lock table %I.%I in access exclusive mode', {schema_literal}, candidate.name);
        continue when not {schema}.may_empty(candidate.name, retention);
        execute format('insert into {schema_in_text}.kept
                            (xid, seq, id, topic, key, payload, content_type, headers, created_at,
                             deliver_after, expires_at)
                        select xid, seq, id, topic, key, payload, content_type, headers, created_at,
                               deliver_after, expires_at
                          from %I.%I
                         where seq in (select w.seq from {schema_in_text}.wanted_seqs() w)
                            on conflict on constraint kept_pkey do nothing',
                       {schema_literal}, candidate.name);
        get diagnostics kept = row_count;
        execute format('truncate table %I.%I', {schema_literal}, candidate.name);
        partition := candidate.name;
        return;
    end loop;
end
$$;

-- Whether a partition holds rows, all of them below the floor and older than the retention.
create function {schema}.may_empty(partition text, retention interval) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    newest record;
begin
    execute format('select seq, created_at from %I.%I order by seq desc limit 1',
                   {schema_literal}, partition) into newest;
    return newest.seq is not null
       and newest.seq < {schema}.retention_floor()
       and newest.created_at < clock_timestamp() - retention;
end
$$;

-- Drops the oldest empty partition that the sequence has passed, when more than four stand; answers its
-- name, or NULL. Dropping locks the whole log, for at most 50 ms: so one in a round, and the last
-- few are left alone, which cost nothing.
create function {schema}.maintain_drop() returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set row_security = off
as $$
declare
    shells_max constant int := 4;
    shells text[] := '{}';
    candidate record;
    filled boolean;
begin
    if not {schema}.maintain_begin() then
        return null;
    end if;
    for candidate in
        select p.name from {schema}.partitions() p
         where not p.detaching and p.hi <= {schema}.retention_floor()
           and p.hi <= (select s.last_value from {schema}.message_seq s)
         order by p.lo
    loop
        execute format('select exists (select from %I.%I)', {schema_literal}, candidate.name)
           into filled;
        if not filled then
            shells := shells || candidate.name;
        end if;
        exit when cardinality(shells) > shells_max;
    end loop;
    if cardinality(shells) <= shells_max then
        return null;
    end if;
    -- The log before its partition, as everybody else does; ONLY, or it would lock every partition.
    lock table only {schema}.message in access exclusive mode;
    execute format('lock table %I.%I in access exclusive mode', {schema_literal}, shells[1]);
    execute format('select exists (select from %I.%I)', {schema_literal}, shells[1]) into filled;
    if filled then
        return null;
    end if;
    execute format('drop table %I.%I', {schema_literal}, shells[1]);
    return shells[1];
end
$$;

-- Lets the other progress table take the inserts, once the active one has grown: copies out of the idle
-- table what is newest for its destination, under its own id, so that a settle that is being written
-- now stays newer, and truncates it. Answers whether it did.
create function {schema}.maintain_rotate() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set row_security = off
as $$
declare
    bytes_max constant bigint := 1048576;
    active smallint;
    idle smallint;
begin
    if not {schema}.maintain_begin() then
        return false;
    end if;
    select r.active, 1 - r.active into active, idle from {schema}.rotation r;
    if pg_relation_size(format('{schema_in_text}.%I', 'progress_' || active)) < bytes_max then
        return false;
    end if;
    execute format('lock table {schema_in_text}.%I in access exclusive mode', 'progress_' || idle);
    execute format('insert into {schema_in_text}.%1$I
                    select old.* from {schema_in_text}.%2$I old
                     where old.id = (select max(o.id) from {schema_in_text}.%2$I o
                                      where o.destination = old.destination)
                       and old.id > coalesce((select max(n.id) from {schema_in_text}.%1$I n
                                               where n.destination = old.destination), 0)',
                   'progress_' || active, 'progress_' || idle);
    execute format('truncate table {schema_in_text}.%I', 'progress_' || idle);
    update {schema}.rotation set active = idle, rotated_at = now();
    return true;
end
$$;

-- Removes what nobody needs any more: relays silent for an hour that lead nothing, requests applied
-- longer ago than the retention, and kept messages without a delivery row or open request.
create function {schema}.maintain_sweep(retention interval) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set row_security = off
as $$
declare
    removed bigint;
    total bigint := 0;
begin
    if not {schema}.maintain_begin() then
        return 0;
    end if;
    delete from {schema}.relay r
     where r.beat_at < clock_timestamp() - interval '1 hour'
       and not exists (select from {schema}.lease l where l.owner = r.instance);
    get diagnostics removed = row_count;
    total := total + removed;
    delete from {schema}.request r where r.applied_at < clock_timestamp() - retention;
    get diagnostics removed = row_count;
    total := total + removed;
    delete from {schema}.kept k where k.seq not in (select w.seq from {schema}.wanted_seqs() w);
    get diagnostics removed = row_count;
    return total + removed;
end
$$;

-- Rows in the default partition, counted up to 1,000,000: the first one is an alert.
create function {schema}.default_rows() returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
    select count(*) from (select from {schema}.message_default limit 1000000) r
$$;

-- Rights: a fresh function is open to PUBLIC, so each is closed first.
do $$
declare
    f regprocedure;
begin
    for f in select p.oid::regprocedure from pg_proc p
              where p.pronamespace = '{schema_in_text}'::regnamespace
                and p.proname in ('partitions', 'seq_at', 'retention_floor', 'wanted_seqs', 'may_empty',
                    'maintain_begin', 'maintain_attach', 'maintain_empty', 'maintain_drop',
                    'maintain_rotate', 'maintain_sweep', 'default_rows')
    loop
        execute format('revoke all on function %s from public', f);
        perform {schema}.grant_if('outbox_relay', format('execute on function %s', f));
        perform {schema}.grant_if('outbox_maintainer', format('execute on function %s', f));
    end loop;
    perform {schema}.grant_if('outbox_reader', 'execute on function {schema_in_text}.partitions()');
    perform {schema}.grant_if('outbox_reader', 'execute on function {schema_in_text}.default_rows()');
    perform {schema}.grant_if('outbox_reader', 'execute on function {schema_in_text}.seq_at(timestamptz)');
end
$$;

-- The log belongs to a role that nobody can log in as, and the functions above do too. Where whoever
-- migrates may not hand them over, both stay with them.
do $$
declare
    f regprocedure;
    t text;
begin
    if exists (select from pg_roles where rolname = 'outbox_maintainer') then
        for t in select p.name from {schema}.partitions() p union all select 'message' loop
            execute format('alter table {schema_in_text}.%I owner to outbox_maintainer', t);
        end loop;
        for f in select p.oid::regprocedure from pg_proc p
                  where p.pronamespace = '{schema_in_text}'::regnamespace
                    and (p.proname like 'maintain\_%' or p.proname = 'default_rows')
        loop
            execute format('alter function %s owner to outbox_maintainer', f);
        end loop;
    end if;
exception
    when insufficient_privilege then
        raise notice 'the log and its house-keeping stay with %', current_user;
end
$$;
