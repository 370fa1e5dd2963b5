
-- The consumer's side: what was applied, and what could not be. It may live in a database of its own,
-- the consumer's, where nothing else of the outbox is; so it can be created alone, before or after.
create table if not exists {schema}.inbox (
    consumer    text        collate "C" not null,
    message_id  uuid        not null,
    accepted_at timestamptz not null default clock_timestamp(),
    constraint inbox_pkey primary key (consumer, message_id)
);

create table if not exists {schema}.inbox_dead (
    id           bigint      not null generated always as identity constraint inbox_dead_pkey primary key,
    consumer     text        collate "C" not null,
    message_id   uuid,
    topic        text        collate "C" not null,
    "partition"  integer     not null,
    "offset"     bigint      not null,
    key          bytea,
    payload      bytea       not null,
    content_type text,
    headers      jsonb       not null default '{}',
    attempts     integer     not null,
    error        text        not null,
    dead_at      timestamptz not null default clock_timestamp(),
    constraint inbox_dead_record unique (consumer, topic, "partition", "offset")
);
