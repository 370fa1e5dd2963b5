//! Destinations and their routes.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use outbox_core::{Destination, Seq, Start, StoreError, limits};
use sqlx::{PgConnection, Row};

use super::Desk;
use crate::error::{OrStoreError, damaged};
use crate::incarnation::Incarnation;
use crate::sql::{
    ADMIN_DECLARE_LOCK, ADMIN_DESTINATION, ADMIN_DESTINATION_INSERT, ADMIN_DESTINATION_UPDATE,
    ADMIN_LAST_SEQ, ADMIN_PROGRESS_INSERT, ADMIN_ROUTE_CLOSE, ADMIN_ROUTE_OPEN, ADMIN_SEQ_AT,
};

const CONTEXT: &str = "declare destinations";

/// How much earlier than asked a start at a time begins: more than `created_at` and `seq` can
/// differ in order.
const START_SLACK: TimeDelta = TimeDelta::seconds(10);

/// Makes the store's destinations be these, all in one transaction.
pub(super) async fn declare(
    desk: &Desk<'_>,
    destinations: &[Destination],
) -> Result<(), StoreError> {
    for destination in destinations {
        validate(destination)?;
    }
    let mut tx = desk.begin().await?;
    desk.query(ADMIN_DECLARE_LOCK)
        .execute(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    // Behind the lock: routes of two declarations must not overlap.
    let last_seq = last_seq(desk, &mut tx).await?;
    for destination in destinations {
        declare_one(desk, &mut tx, destination, last_seq).await?;
    }
    tx.commit().await.or_store(CONTEXT)
}

/// The last seq that was taken, by transactions that are still open too.
pub(super) async fn last_seq(desk: &Desk<'_>, tx: &mut PgConnection) -> Result<Seq, StoreError> {
    let context = "read the sequence";
    let row = desk
        .query(ADMIN_LAST_SEQ)
        .fetch_one(tx)
        .await
        .or_store(context)?;
    row.try_get(0).or_store(context)
}

async fn declare_one(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    destination: &Destination,
    last_seq: Seq,
) -> Result<(), StoreError> {
    let config = serde_json::to_value(destination).map_err(|e| damaged(CONTEXT, e.to_string()))?;
    let known = desk
        .query(ADMIN_DESTINATION)
        .bind(&destination.name)
        .fetch_optional(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    let Some(known) = known else {
        return create(desk, tx, destination, config, last_seq).await;
    };
    let old: Vec<String> = known.try_get(2).or_store(CONTEXT)?;
    let rerouted = reroute(desk, tx, destination, &old, last_seq).await?;
    let stored: serde_json::Value = known.try_get(0).or_store(CONTEXT)?;
    let paused: bool = known.try_get(1).or_store(CONTEXT)?;
    // A start has no effect on a destination that exists, so a new one is no change either.
    let config = keep_start(config, &stored);
    if rerouted || stored != config || paused != destination.paused {
        desk.query(ADMIN_DESTINATION_UPDATE)
            .bind(&destination.name)
            .bind(config)
            .bind(destination.paused)
            .execute(tx)
            .await
            .or_store(CONTEXT)?;
    }
    Ok(())
}

fn keep_start(mut config: serde_json::Value, stored: &serde_json::Value) -> serde_json::Value {
    if let (Some(config), Some(start)) = (config.as_object_mut(), stored.get("start")) {
        config.insert("start".to_owned(), start.clone());
    }
    config
}

async fn create(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    destination: &Destination,
    config: serde_json::Value,
    last_seq: Seq,
) -> Result<(), StoreError> {
    let cursor = match destination.start {
        Start::Beginning => 0,
        Start::End => last_seq,
        Start::At(time) => {
            let row = desk
                .query(ADMIN_SEQ_AT)
                .bind(time - START_SLACK)
                .fetch_one(&mut *tx)
                .await
                .or_store(CONTEXT)?;
            row.try_get::<Seq, _>(0).or_store(CONTEXT)? - 1
        }
    };
    let incarnation = Incarnation::read(&mut *tx, desk.statements).await?;
    desk.query(ADMIN_DESTINATION_INSERT)
        .bind(&destination.name)
        .bind(config)
        .bind(destination.paused)
        .execute(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    desk.query(ADMIN_PROGRESS_INSERT)
        .bind(&destination.name)
        .bind(incarnation.to_string())
        .bind(cursor)
        .execute(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    for pattern in &destination.patterns {
        open(desk, tx, destination, pattern, cursor + 1).await?;
    }
    Ok(())
}

/// Closes the routes that are no longer declared at the last seq, and opens the new ones behind
/// it. Answers whether anything changed.
async fn reroute(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    destination: &Destination,
    old: &[String],
    last_seq: Seq,
) -> Result<bool, StoreError> {
    let old: BTreeSet<&str> = old.iter().map(String::as_str).collect();
    let new: BTreeSet<&str> = destination.patterns.iter().map(|p| p.as_str()).collect();
    for gone in old.difference(&new) {
        desk.query(ADMIN_ROUTE_CLOSE)
            .bind(&destination.name)
            .bind(*gone)
            .bind(last_seq)
            .execute(&mut *tx)
            .await
            .or_store(CONTEXT)?;
    }
    for pattern in &destination.patterns {
        if !old.contains(pattern.as_str()) {
            open(desk, tx, destination, pattern, last_seq + 1).await?;
        }
    }
    Ok(old != new)
}

async fn open(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    destination: &Destination,
    pattern: &outbox_core::TopicPattern,
    from: Seq,
) -> Result<(), StoreError> {
    desk.query(ADMIN_ROUTE_OPEN)
        .bind(&destination.name)
        .bind(pattern.as_str())
        .bind(pattern.to_like())
        .bind(from)
        .execute(tx)
        .await
        .or_store(CONTEXT)?;
    Ok(())
}

fn validate(destination: &Destination) -> Result<(), StoreError> {
    let name = &destination.name;
    let refuse = |problem: String, cure: &str| {
        Err(StoreError::Refused {
            problem,
            cure: cure.to_owned(),
        })
    };
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
        return refuse(
            format!(
                "destination name {name:?} is {} bytes long, the limits are 1 and {}",
                name.len(),
                limits::NAME_BYTES_MAX
            ),
            "give it another name",
        );
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if let Some(at) = name.bytes().position(|b| !allowed(b)) {
        return refuse(
            format!("destination name {name:?} has a character at byte {at} that is not allowed"),
            "use a-z 0-9 _ - only",
        );
    }
    let patterns = destination.patterns.len();
    if patterns == 0 || patterns > limits::PATTERNS_MAX {
        return refuse(
            format!(
                "destination {name:?} has {patterns} topic patterns, the limits are 1 and {}",
                limits::PATTERNS_MAX
            ),
            "list fewer patterns, with `*` for any run of characters, or `*` alone for all",
        );
    }
    Ok(())
}
