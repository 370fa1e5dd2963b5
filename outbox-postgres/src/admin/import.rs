//! Messages from a file, with the position in it.

use outbox_core::{Message, StoreError};
use sqlx::{PgConnection, Row};

use super::Desk;
use crate::Outbox;
use crate::error::{OrStoreError, damaged};
use crate::sql::{ADMIN_IMPORT_MOVE, ADMIN_IMPORT_POSITION};

/// Longest name of a source: an absolute path.
const SOURCE_BYTES_MAX: usize = 4_096;

/// Enqueues `messages` and moves the position of `source`, in one transaction.
pub(super) async fn import(
    desk: &Desk<'_>,
    source: &str,
    from: u64,
    to: u64,
    messages: &[Message],
) -> Result<(), StoreError> {
    let context = "import messages";
    if source.is_empty() || source.len() > SOURCE_BYTES_MAX {
        return Err(StoreError::Refused {
            problem: format!(
                "the source's name is {} bytes long, the limits are 1 and {SOURCE_BYTES_MAX}",
                source.len()
            ),
            cure: "give it another name".to_owned(),
        });
    }
    let (old, new) = (position(from)?, position(to)?);
    let mut tx = desk.begin().await?;
    let moved = desk
        .query(ADMIN_IMPORT_MOVE)
        .bind(source)
        .bind(old)
        .bind(new)
        .execute(&mut *tx)
        .await
        .or_store(context)?;
    if moved.rows_affected() == 0 {
        let found = read(desk, &mut tx, source).await?;
        return Err(StoreError::Refused {
            problem: format!("{source:?} was imported up to {found}, not {from}"),
            cure: "let the other import of it finish, then start again: it goes on from there"
                .to_owned(),
        });
    }
    let outbox = Outbox::with_schema(desk.schema).pooled();
    outbox
        .enqueue_all(&mut tx, messages.iter().cloned())
        .await?;
    tx.commit().await.or_store(context)
}

/// The position of `source`: 0 when it was never imported.
pub(super) async fn import_position(desk: &Desk<'_>, source: &str) -> Result<u64, StoreError> {
    let mut tx = desk.begin().await?;
    let position = read(desk, &mut tx, source).await?;
    tx.commit().await.or_store("read an import's position")?;
    Ok(position)
}

async fn read(desk: &Desk<'_>, tx: &mut PgConnection, source: &str) -> Result<u64, StoreError> {
    let context = "read an import's position";
    let query = desk.query(ADMIN_IMPORT_POSITION).bind(source);
    let row = query.fetch_one(tx).await.or_store(context)?;
    let position: i64 = row.try_get(0).or_store(context)?;
    u64::try_from(position).map_err(|_| damaged(context, format!("it is {position}")))
}

fn position(position: u64) -> Result<i64, StoreError> {
    i64::try_from(position).map_err(|_| StoreError::Refused {
        problem: format!("position {position} is beyond the limit {}", i64::MAX),
        cure: "split the file".to_owned(),
    })
}
