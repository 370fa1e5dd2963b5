-- The consumer's side: what was applied, and what could not be. It may live in a file of its own,
-- the consumer's database, where nothing else of the outbox is; so it can be created alone.
create table if not exists outbox_inbox (
    consumer    text    not null,
    message_id  blob    not null,
    accepted_at integer not null,
    primary key (consumer, message_id)
) strict, without rowid;

create table if not exists outbox_inbox_dead (
    id           integer primary key,
    consumer     text    not null,
    message_id   blob,
    topic        text    not null,
    "partition"  integer not null,
    "offset"     integer not null,
    key          blob,
    payload      blob    not null,
    content_type text,
    headers      text    not null default '{}',
    attempts     integer not null,
    error        text    not null,
    dead_at      integer not null,
    unique (consumer, topic, "partition", "offset")
) strict;
