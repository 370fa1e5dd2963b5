//! A copy, or a backup that was written back, becomes a store of its own.

use outbox_core::StoreError;
use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use crate::error::failed;
use crate::opening::set_sequence;
use crate::row::get;
use crate::store::{Home, SqliteStore, commit, last_seq};

const CONTEXT: &str = "adopt the store";

const HOME: &str = "UPDATE outbox_store SET store_id = ?, file = ?";

/// A leader that is running on the file reopens, under the new name.
const RELEASE: &str = "UPDATE outbox_lease SET owner = NULL";

const NAMES: &str = "SELECT name FROM outbox_destination ORDER BY name";

/// Gives the file a `store_id` of its own and sets the sequence behind what was handed out; does
/// nothing to a store that is at home.
pub(crate) async fn adopt(store: &SqliteStore) -> Result<Vec<String>, StoreError> {
    let mut tx = store.write().await?;
    let home = Home::read(store, &mut tx).await?;
    let handed_out = store.witness().highest()?;
    let set_back = last_seq(&mut tx).await? < handed_out;
    if home.is_home() && !set_back {
        return Ok(Vec::new());
    }
    if set_back {
        let set = sqlx::raw_sql(AssertSqlSafe(set_sequence(handed_out)))
            .execute(&mut *tx)
            .await;
        set.map_err(|e| failed(CONTEXT, e))?;
    }
    rename(&mut tx, home.found).await?;
    let rows = sqlx::query(NAMES)
        .fetch_all(&mut *tx)
        .await
        .map_err(|e| failed(CONTEXT, e))?;
    let names = rows
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<_, _>>()?;
    commit(tx).await?;
    Ok(names)
}

async fn rename(tx: &mut SqliteConnection, file: String) -> Result<(), StoreError> {
    let store_id = Uuid::now_v7().simple().to_string();
    for query in [
        sqlx::query(HOME).bind(store_id).bind(file),
        sqlx::query(RELEASE),
    ] {
        query
            .execute(&mut *tx)
            .await
            .map_err(|e| failed(CONTEXT, e))?;
    }
    Ok(())
}
