//! A copy takes over.

use outbox_core::{Seq, StoreError};
use sqlx::Row;

use super::Desk;
use crate::error::OrStoreError;
use crate::incarnation::Incarnation;
use crate::sql::{
    ADMIN_ADOPT_GAPS, ADMIN_ADOPT_LEASE, ADMIN_ADOPT_PROGRESS, ADMIN_DECLARE_LOCK,
    ADMIN_DESTINATIONS, ADMIN_PROGRESS_INSERT,
};

const CONTEXT: &str = "adopt the store";

/// Writes the progress of every destination that stands on another store again, on this one;
/// answers their names. Open gaps get fences of this cluster, and leases of the other store's
/// relays end. A sequence that stands below what was handed out is left for the relay to refuse.
pub(super) async fn adopt(desk: &Desk<'_>) -> Result<Vec<String>, StoreError> {
    let mut tx = desk.begin().await?;
    desk.query(ADMIN_DECLARE_LOCK)
        .execute(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    let here = Incarnation::read(&mut tx, desk.statements).await?;
    let rows = desk
        .query(ADMIN_DESTINATIONS)
        .fetch_all(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    let mut adopted = Vec::new();
    for row in &rows {
        let name: String = row.try_get(0).or_store(CONTEXT)?;
        let stored: Option<String> = row.try_get(1).or_store(CONTEXT)?;
        if is_at_home(&here, stored.as_deref()) {
            continue;
        }
        let written = match stored {
            Some(_) => desk
                .query(ADMIN_ADOPT_PROGRESS)
                .bind(name.clone())
                .bind(here.to_string()),
            // Its progress was lost: from the beginning, for a duplicate is better than a loss.
            None => desk
                .query(ADMIN_PROGRESS_INSERT)
                .bind(name.clone())
                .bind(here.to_string())
                .bind(0 as Seq),
        };
        written.execute(&mut *tx).await.or_store(CONTEXT)?;
        for statement in [ADMIN_ADOPT_GAPS, ADMIN_ADOPT_LEASE] {
            let query = desk.query(statement).bind(name.clone());
            query.execute(&mut *tx).await.or_store(CONTEXT)?;
        }
        adopted.push(name);
    }
    tx.commit().await.or_store(CONTEXT)?;
    Ok(adopted)
}

/// Progress of the same store, on whatever timeline: the relay itself goes on there.
fn is_at_home(here: &Incarnation, stored: Option<&str>) -> bool {
    let stored = stored.and_then(|text| text.parse::<Incarnation>().ok());
    stored.is_some_and(|stored| here.same_store(&stored))
}
