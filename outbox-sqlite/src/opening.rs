//! What a session starts from.

use std::collections::BTreeMap;

use outbox_core::{BlockedKey, Destination, KeyRef, Lease, Opened, Seq, StoreError};
use sqlx::SqliteConnection;

use crate::error::{corrupt, failed};
use crate::row::get;
use crate::store::{Home, SqliteStore, holds, last_seq, lost};

const CONTEXT: &str = "open the session";

/// Config, control version, cursor, and the highest seq that anything knows of.
const DESTINATION: &str = "SELECT d.config, d.control_version, p.cursor, max(p.cursor, \
     coalesce((SELECT max(seq) FROM outbox_message), 0), \
     coalesce((SELECT max(seq) FROM outbox_delivery), 0)) \
     FROM outbox_destination d JOIN outbox_progress p ON p.destination = d.name WHERE d.name = ?";

/// Rows with a time, and the lowest seq that may still be sent.
const WAITING: &str = "SELECT \
     (SELECT count(*) FROM outbox_delivery WHERE destination = ?1 \
      AND state IN ('retrying', 'scheduled')), \
     (SELECT min(seq) FROM outbox_delivery WHERE destination = ?1 \
      AND state IN ('retrying', 'parked', 'scheduled')), \
     (SELECT min(from_seq) FROM outbox_parked_key WHERE destination = ?1)";

/// Keys with rows that block or wait: topic, key, blockers, parked.
const KEYS: &str = "SELECT topic, key, sum(state <> 'parked'), sum(state = 'parked') \
     FROM outbox_delivery WHERE destination = ? AND key IS NOT NULL \
     AND (state = 'parked' OR (blocks_key AND state IN ('retrying', 'dead'))) GROUP BY topic, key";

const MARKERS: &str = "SELECT topic, key, from_seq FROM outbox_parked_key WHERE destination = ?";

/// Verifies the lease, the file and the sequence, and loads everything.
pub(crate) async fn load(
    store: &SqliteStore,
    tx: &mut SqliteConnection,
    lease: &Lease,
) -> Result<Opened, StoreError> {
    crate::migrate::check_version(tx).await?;
    if !holds(tx, lease).await? {
        return Err(lost(lease));
    }
    let home = Home::read(store, tx).await?;
    if !home.is_home() {
        return Err(home.foreign(&lease.destination));
    }
    let row = sqlx::query(DESTINATION)
        .bind(lease.destination.clone())
        .fetch_one(&mut *tx)
        .await;
    let row = row.map_err(|e| failed(CONTEXT, e))?;
    let cursor = get(&row, 2)?;
    let handed_out = store.witness().highest()?;
    check_sequence(tx, lease, handed_out.max(get(&row, 3)?)).await?;
    let (waiting, low_water) = waiting(tx, &lease.destination, cursor).await?;
    Ok(Opened {
        destination: config(get(&row, 0)?)?,
        incarnation: home.store_id,
        cursor,
        low_water,
        waiting,
        keys: keys(tx, &lease.destination).await?,
        control_version: get(&row, 1)?,
    })
}

/// A destination as declared.
pub(crate) fn config(json: &str) -> Result<Destination, StoreError> {
    serde_json::from_str(json).map_err(|e| corrupt("the destination", e))
}

/// Somebody set the sequence back, or wrote a backup over the file: new messages would be below the
/// cursor, or take seqs that a broker has seen.
async fn check_sequence(
    tx: &mut SqliteConnection,
    lease: &Lease,
    high_water: Seq,
) -> Result<(), StoreError> {
    let last = last_seq(tx).await?;
    if last >= high_water {
        return Ok(());
    }
    Err(StoreError::SequenceBehind {
        destination: lease.destination.clone(),
        last,
        high_water,
        cure: set_sequence(high_water),
    })
}

/// The statements that set the sequence to `seq`, whether its row is there or not.
pub(crate) fn set_sequence(seq: Seq) -> String {
    format!(
        "DELETE FROM sqlite_sequence WHERE name = 'outbox_message'; \
         INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox_message', {seq})"
    )
}

async fn waiting(
    tx: &mut SqliteConnection,
    destination: &str,
    cursor: Seq,
) -> Result<(u64, Seq), StoreError> {
    let row = sqlx::query(WAITING)
        .bind(destination.to_owned())
        .fetch_one(tx)
        .await;
    let row = row.map_err(|e| failed(CONTEXT, e))?;
    let live: Option<Seq> = get(&row, 1)?;
    let marker: Option<Seq> = get(&row, 2)?;
    let lowest = [Some(cursor + 1), live, marker].into_iter().flatten().min();
    Ok((get(&row, 0)?, lowest.unwrap_or(cursor + 1)))
}

async fn keys(tx: &mut SqliteConnection, destination: &str) -> Result<Vec<BlockedKey>, StoreError> {
    let rows = sqlx::query(KEYS)
        .bind(destination.to_owned())
        .fetch_all(&mut *tx)
        .await;
    let markers = sqlx::query(MARKERS)
        .bind(destination.to_owned())
        .fetch_all(tx)
        .await;
    let mut keys: BTreeMap<KeyRef, BlockedKey> = BTreeMap::new();
    let bare = |key: KeyRef| BlockedKey {
        key,
        blockers: 0,
        parked: 0,
        marker: None,
    };
    for row in rows.map_err(|e| failed(CONTEXT, e))? {
        let key = key_ref(get(&row, 0)?, get(&row, 1)?);
        let found = keys.entry(key.clone()).or_insert_with(|| bare(key));
        (found.blockers, found.parked) = (get(&row, 2)?, get(&row, 3)?);
    }
    for row in markers.map_err(|e| failed(CONTEXT, e))? {
        let key = key_ref(get(&row, 0)?, get(&row, 1)?);
        keys.entry(key.clone()).or_insert_with(|| bare(key)).marker = Some(get(&row, 2)?);
    }
    Ok(keys.into_values().collect())
}

fn key_ref(topic: &str, key: &str) -> KeyRef {
    KeyRef {
        topic: topic.into(),
        key: key.into(),
    }
}
