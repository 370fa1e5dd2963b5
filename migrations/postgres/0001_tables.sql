-- The outbox is a log; destinations are cursors over it; exceptions are rows.
--
-- {schema} is the quoted name of the schema. Nothing below changes a message once it is inserted:
-- one that is sent costs no dead tuple, and retention empties whole partitions.

-- The log. The order of the columns matters:
--   xid stands before seq, so that its default is evaluated first. A transaction therefore has its
--   xid before it takes a seq, which is what makes a fence of a gap sound (docs/gaps.md).
--   seq is GENERATED ALWAYS with CACHE 1: a cached or hand-picked seq would commit below a fence.
--   created_at is clock_timestamp(), not now(): it is taken beside the seq, so that it grows with
--   seq up to the concurrency of the writers, and "start at time T" can search the log by seq. now() is
--   the start of the transaction, hours old in a long one.
-- NULL stands for the usual value (content type application/json, no headers) to save WAL.
-- Topic and key compare by bytes (COLLATE "C"): cheaper, and safe from a collation upgrade.
create table {schema}.message (
    xid           xid8        not null default pg_current_xact_id(),
    seq           bigint      not null generated always as identity
                              (sequence name {schema}.message_seq increment by 1 cache 1 no cycle),
    id            uuid        not null,
    topic         text        collate "C" not null,
    key           text        collate "C",
    payload       bytea       not null,
    content_type  text        collate "C",
    headers       jsonb,
    created_at    timestamptz not null default clock_timestamp(),
    deliver_after timestamptz,
    expires_at    timestamptz,
    constraint message_pkey primary key (seq)
) partition by range (seq);

comment on table {schema}.message is
    'Append-only log of enqueued messages, partitioned by seq. Written by the enqueue functions only.';

-- The net: an insert never fails because a partition is missing. Its first row is an alert.
create table {schema}.message_default
    (like {schema}.message including all excluding identity);
alter table {schema}.message attach partition {schema}.message_default default;

-- The first partitions, 1,000,000 seqs each; house-keeping attaches more, well ahead. Made by LIKE
-- and ATTACH, because CREATE … PARTITION OF would lock the log against writers.
do $$
declare
    width constant bigint := 1000000;
    lo bigint;
begin
    for i in 0..7 loop
        lo := i * width + 1;
        execute format('create table %I.%I (like {schema_in_text}.message including all excluding identity)',
                       {schema_literal}, 'message_p' || lo);
        execute format('alter table {schema_in_text}.message attach partition %I.%I for values from (%s) to (%s)',
                       {schema_literal}, 'message_p' || lo, lo, lo + width);
    end loop;
end
$$;

-- Messages that outlive their partition: something (a schedule, a parked key, a dead letter) still
-- needs them. Same columns; no defaults, for it holds copies.
create table {schema}.kept (
    xid           xid8        not null,
    seq           bigint      not null constraint kept_pkey primary key,
    id            uuid        not null,
    topic         text        collate "C" not null,
    key           text        collate "C",
    payload       bytea       not null,
    content_type  text        collate "C",
    headers       jsonb,
    created_at    timestamptz not null,
    deliver_after timestamptz,
    expires_at    timestamptz
);

-- Topics that were declared. A strict one gives a total order for each key: enqueue then takes an
-- advisory lock on (topic, key) before the seq.
create table {schema}.topic (
    name   text    collate "C" not null constraint topic_pkey primary key,
    strict boolean not null default false
);

-- Places messages go. config is the destination as declared (JSON); paused and control_version
-- are changed by operators. id is the order of creation: the first destination counts what no
-- route covers.
create table {schema}.destination (
    name            text        collate "C" not null constraint destination_pkey primary key,
    id              integer     not null generated always as identity
                                constraint destination_id_key unique,
    config          jsonb       not null,
    paused          boolean     not null default false,
    control_version bigint      not null default 0,
    created_at      timestamptz not null default now()
);

-- Which topics a destination covers, and for which stretch of the log (both ends included; an open
-- end is NULL). A change of patterns closes the old routes at the last seq and opens new ones.
create table {schema}.route (
    id           bigint not null generated always as identity constraint route_pkey primary key,
    destination  text   collate "C" not null
                 references {schema}.destination (name) on delete cascade,
    pattern      text   collate "C" not null,
    like_pattern text   collate "C" not null,
    from_seq     bigint not null,
    to_seq       bigint
);
create index route_destination_idx on {schema}.route (destination, from_seq);

-- Heart beats. A relay is dead when its beat has not changed for the TTL on the observer's clock;
-- the store's clock is never compared, beat_at is for people.
create table {schema}.relay (
    instance text        collate "C" not null constraint relay_pkey primary key,
    beat     bigint      not null,
    beat_at  timestamptz not null default now()
) with (fillfactor = 50);

-- Who leads a destination. epoch grows with every claim and never otherwise; every write of a
-- settle reads this row FOR SHARE and is guarded by the epoch and by route_version.
create table {schema}.lease (
    destination   text   collate "C" not null constraint lease_pkey primary key
                  references {schema}.destination (name) on delete cascade,
    owner         text   collate "C",
    epoch         bigint not null default 0,
    route_version bigint not null default 0
) with (fillfactor = 50);

-- A change of routes voids what sessions have read ahead under the old ones: their next settle finds
-- another route_version, changes nothing, and they open again at the cursor. Whoever changes routes
-- locks the lease row first, then reads the last seq, then writes the routes, in one transaction: the
-- lock keeps the cursor from passing that seq under the old routes.
create function {schema}.route_changed() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update {schema}.lease set route_version = route_version + 1
     where destination = coalesce(new.destination, old.destination);
    return null;
end
$$;
create trigger route_changed after insert or update or delete on {schema}.route
    for each row execute function {schema}.route_changed();

-- Cursors. Insert-only: one updated row gets slower with every settle while a snapshot is held. Two
-- tables take turns; house-keeping copies what is newest out of the idle one and truncates it.
create sequence {schema}.progress_id cache 1;

create table {schema}.progress_0 (
    destination text        collate "C" not null,
    id          bigint      not null default nextval('{schema_in_text}.progress_id'),
    incarnation text        not null,
    epoch       bigint      not null,
    cursor      bigint      not null,
    low_water   bigint      not null,
    high_water  bigint      not null,
    settled_at  timestamptz not null default clock_timestamp(),
    constraint progress_0_pkey primary key (destination, id)
);
comment on column {schema}.progress_0.cursor is
    'Every seq at or below it was sent, is in a gap, or has a delivery row or marker.';
comment on column {schema}.progress_0.low_water is
    'No seq below it will be published again, but by resend.';
comment on column {schema}.progress_0.high_water is
    'Highest seq that was handed out: the sequence must never stand below it.';

create table {schema}.progress_1 (like {schema}.progress_0 including defaults including comments,
    constraint progress_1_pkey primary key (destination, id));

-- Which of the two takes inserts now. A settle that reads it just before a rotation writes to the other
-- one, which does no harm: readers take the newest id of both.
create table {schema}.rotation (
    one        boolean     not null default true constraint rotation_pkey primary key check (one),
    active     smallint    not null default 0 check (active in (0, 1)),
    rotated_at timestamptz not null default now()
);
insert into {schema}.rotation default values;

-- The newest progress of each destination.
create view {schema}.progress as
    select p.*
      from {schema}.destination d
     cross join lateral (
           select * from (
               (select * from {schema}.progress_0 a where a.destination = d.name
                 order by a.id desc limit 1)
               union all
               (select * from {schema}.progress_1 b where b.destination = d.name
                 order by b.id desc limit 1)) both_tables
            order by id desc limit 1) p;

-- Seqs at or below the cursor that were not there and may still commit, as ranges with both ends
-- included. fence: an xid that was taken after the seqs were (docs/gaps.md).
create table {schema}.gap (
    destination text        collate "C" not null,
    lo          bigint      not null,
    hi          bigint      not null,
    fence       xid8        not null,
    opened_at   timestamptz not null default clock_timestamp(),
    constraint gap_pkey primary key (destination, lo),
    constraint gap_range check (lo <= hi)
);

-- Exceptions only; empty is normal. States: retrying, parked, scheduled, dead, expired.
create table {schema}.delivery (
    destination  text        collate "C" not null,
    seq          bigint      not null,
    topic        text        collate "C" not null,
    key          text        collate "C",
    state        text        collate "C" not null
                 check (state in ('retrying', 'parked', 'scheduled', 'dead', 'expired')),
    attempts     integer     not null default 0,
    next_attempt timestamptz,
    last_error   text,
    redelivery   integer     not null default 0,
    blocks_key   boolean     not null default false,
    updated_at   timestamptz not null default clock_timestamp(),
    constraint delivery_pkey primary key (destination, seq)
);
create index delivery_due_idx on {schema}.delivery (destination, next_attempt)
    where next_attempt is not null;
create index delivery_key_idx on {schema}.delivery (destination, topic, key, seq)
    where key is not null;
-- Low water: the lowest seq that will still be published, past any number of dead letters.
create index delivery_live_idx on {schema}.delivery (destination, seq)
    where state in ('retrying', 'parked', 'scheduled');

-- A key with more followers than rows are kept for: from_seq and all later seqs of the key wait.
create table {schema}.parked_key (
    destination text   collate "C" not null,
    topic       text   collate "C" not null,
    key         text   collate "C" not null,
    from_seq    bigint not null,
    constraint parked_key_pkey primary key (destination, topic, key)
);

-- What operators asked for. Only the leader applies it, in a settle. At most 1,000 seqs a row.
create table {schema}.request (
    id          bigint      not null generated always as identity constraint request_pkey primary key,
    destination text        collate "C" not null,
    action      text        collate "C" not null check (action in ('resend', 'discard', 'unblock')),
    seqs        bigint[]    not null check (cardinality(seqs) <= 1000),
    created_at  timestamptz not null default now(),
    created_by  text        not null default session_user,
    applied_at  timestamptz
);
create index request_open_idx on {schema}.request (destination, id) where applied_at is null;

-- Messages that no route covered: a mistyped topic is a lost message.
create table {schema}.unrouted (
    topic text   collate "C" not null constraint unrouted_pkey primary key,
    count bigint not null,
    first bigint not null,
    last  bigint not null
);

-- How far a file was imported: moves in the transaction that enqueues its lines.
create table {schema}.import (
    source   text   not null constraint import_pkey primary key,
    position bigint not null
);

-- One row for each open session. Unlogged, so that a crash or a promotion empties it: a session
-- that no longer finds its row must not trust what it remembers, even if a pooler hid the restart.
create unlogged table {schema}.session (
    destination text   collate "C" not null constraint session_pkey primary key,
    token       uuid   not null,
    epoch       bigint not null
) with (fillfactor = 50);
