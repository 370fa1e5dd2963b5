-- The outbox is a log; destinations are cursors over it; exceptions are rows.
--
-- The names are those of the PostgreSQL schema, with outbox_ for the schema: a service keeps its own
-- tables in the same file. Times are microseconds since 1970 UTC, ids the 16 bytes of a UUID.

-- Which file this is. store_id is random and goes with the file's contents; file is the identity
-- of the file they were last at home in. A copy has the same store_id in another file, and must not
-- publish until `outbox adopt` gives it a store_id of its own.
create table outbox_store (
    one              integer primary key check (one = 1),
    store_id         text    not null,
    file             text    not null,
    -- Up to here messages without a route were counted, whichever destination did it.
    unrouted_through integer not null default 0
) strict;

-- The log. Nothing changes a message once it is inserted; retention deletes it.
--   AUTOINCREMENT, or seq would start again when retention has emptied the table, below every cursor.
--   The payload is the last column: what only looks at the others need not read its overflow pages.
-- NULL stands for the usual value (content type application/json, no headers).
create table outbox_message (
    seq           integer primary key autoincrement,
    id            blob    not null,
    topic         text    not null,
    key           text,
    content_type  text,
    headers       text,
    created_at    integer not null,
    deliver_after integer,
    expires_at    integer,
    payload       blob    not null
) strict;

-- Places messages go. config is the destination as declared (JSON). id is the order of creation: the
-- first one that is not paused counts what no route covers.
create table outbox_destination (
    id              integer primary key autoincrement,
    name            text    not null unique,
    config          text    not null,
    paused          integer not null default 0,
    control_version integer not null default 1
) strict;

-- Which topics a destination covers, and for which stretch of the log (both ends included; an open
-- end is NULL). A change of patterns closes the old routes at the last seq and opens new ones.
create table outbox_route (
    id          integer primary key,
    destination text    not null references outbox_destination (name) on delete cascade,
    pattern     text    not null,
    from_seq    integer not null,
    to_seq      integer
) strict;
create index outbox_route_destination on outbox_route (destination);

-- Heart beats. A relay is dead when its beat has not changed for the TTL on the observer's clock;
-- beat_at is for people, and for throwing out rows of relays that were gone for days.
create table outbox_relay (
    instance text    not null primary key,
    beat     integer not null,
    beat_at  integer not null
) strict, without rowid;

-- Who leads a destination. epoch grows with every claim and never otherwise; every settle is
-- guarded by owner and epoch.
create table outbox_lease (
    destination text    not null primary key
                references outbox_destination (name) on delete cascade,
    owner       text,
    epoch       integer not null default 0
) strict, without rowid;

-- Cursors: every seq at or below was sent, or has a delivery row or marker. Writers take turns in
-- SQLite and nothing is vacuumed, so one updated row is the cheapest there is. The window is what
-- `outbox status` computes the rate from.
create table outbox_progress (
    destination   text    not null primary key
                  references outbox_destination (name) on delete cascade,
    cursor        integer not null,
    settled_at    integer not null,
    window_cursor integer not null,
    window_at     integer not null,
    rate          real    not null default 0
) strict, without rowid;

-- Exceptions only; empty is normal.
create table outbox_delivery (
    destination  text    not null references outbox_destination (name) on delete cascade,
    seq          integer not null,
    topic        text    not null,
    key          text,
    state        text    not null
                 check (state in ('retrying', 'parked', 'scheduled', 'dead', 'expired')),
    attempts     integer not null,
    next_attempt integer,
    last_error   text,
    redelivery   integer not null,
    blocks_key   integer not null,
    primary key (destination, seq)
) strict, without rowid;
create index outbox_delivery_due on outbox_delivery (destination, next_attempt, seq)
    where next_attempt is not null;
create index outbox_delivery_key on outbox_delivery (destination, topic, key, seq)
    where key is not null;
-- Retention asks for a seq at any destination.
create index outbox_delivery_seq on outbox_delivery (seq);
-- Low water: the lowest seq that will still be published, past any number of dead letters.
create index outbox_delivery_live on outbox_delivery (destination, seq)
    where state in ('retrying', 'parked', 'scheduled');

-- A key with more followers than rows are kept for: from_seq and all later seqs of the key wait.
create table outbox_parked_key (
    destination text    not null references outbox_destination (name) on delete cascade,
    topic       text    not null,
    key         text    not null,
    from_seq    integer not null,
    primary key (destination, topic, key)
) strict, without rowid;

-- What operators asked for and no leader has applied: only the leader does, in a settle, which
-- deletes the row. seqs is a JSON array of at most 1,000.
create table outbox_request (
    id          integer primary key autoincrement,
    destination text    not null references outbox_destination (name) on delete cascade,
    action      text    not null check (action in ('resend', 'discard', 'unblock')),
    seqs        text    not null,
    created_at  integer not null
) strict;
create index outbox_request_destination on outbox_request (destination, id);

-- Messages that no route covered: a mistyped topic is a lost message.
create table outbox_unrouted (
    topic text    not null primary key,
    count integer not null,
    first integer not null,
    last  integer not null
) strict, without rowid;

-- How far a file was imported: moves in the transaction that enqueues its lines.
create table outbox_import (
    source   text    not null primary key,
    position integer not null
) strict, without rowid;
