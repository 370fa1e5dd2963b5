-- Caller: PostgresStore::beat, a few times each TTL. Locks: the relay's own row. Index: relay_pkey.
insert into {schema}.relay as r (instance, beat) values ($1, 1)
    on conflict (instance) do update set beat = r.beat + 1, beat_at = now()
