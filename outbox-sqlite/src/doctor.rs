//! What is known to hurt, looked for.

use outbox_core::{Finding, Seq, Severity, StoreError};
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::limits::WAL_BYTES_ALARM;
use crate::maintain::wal_bytes;
use crate::migrate;
use crate::opening::set_sequence;
use crate::row::get;
use crate::store::{Home, SqliteStore, last_seq};

const CONTEXT: &str = "examine the store";

const HIGHEST: &str = "SELECT max(coalesce((SELECT max(cursor) FROM outbox_progress), 0), \
     coalesce((SELECT max(seq) FROM outbox_message), 0), \
     coalesce((SELECT max(seq) FROM outbox_delivery), 0))";

/// Delivery rows whose message is gone: somebody deleted from the log by hand.
const ORPHANS: &str = "SELECT count(*) FROM outbox_delivery d \
     WHERE NOT EXISTS (SELECT 1 FROM outbox_message m WHERE m.seq = d.seq)";

const DEAD: &str = "SELECT count(*) FROM outbox_delivery WHERE state = 'dead'";

const UNROUTED: &str = "SELECT coalesce(sum(count), 0) FROM outbox_unrouted";

/// Every check, the good ones too.
pub(crate) async fn examine(store: &SqliteStore) -> Result<Vec<Finding>, StoreError> {
    let mut tx = store.read().await?;
    let schema = match migrate::check_version(&mut tx).await {
        Ok(()) => finding("schema", "the schema is at this program's version", None),
        Err(StoreError::Schema { problem, cure }) => {
            // Nothing else can be asked of it.
            return Ok(vec![finding(
                "schema",
                &problem,
                Some((Severity::Error, cure)),
            )]);
        }
        Err(e) => return Err(e),
    };
    Ok(vec![
        schema,
        file(&Home::read(store, &mut tx).await?),
        sequence(&mut tx, store.witness().highest()?).await?,
        wal(wal_bytes(store)),
        orphans(count(&mut tx, ORPHANS).await?),
        dead(count(&mut tx, DEAD).await?),
        unrouted(count(&mut tx, UNROUTED).await?),
    ])
}

fn finding(check: &str, text: &str, bad: Option<(Severity, String)>) -> Finding {
    let (severity, cure) = bad.unwrap_or((Severity::Ok, String::new()));
    Finding {
        severity,
        check: check.to_owned(),
        text: text.to_owned(),
        cure,
    }
}

async fn count(tx: &mut SqliteConnection, sql: &'static str) -> Result<i64, StoreError> {
    let row = sqlx::query(sql).fetch_one(tx).await;
    get(&row.map_err(|e| failed(CONTEXT, e))?, 0)
}

fn file(home: &Home) -> Finding {
    let bad = (!home.is_home()).then(|| {
        let cure = "run `outbox adopt` if this copy now takes over".to_owned();
        (Severity::Error, cure)
    });
    let text = match bad {
        None => format!("store {} is in its own file", home.store_id),
        Some(_) => format!(
            "store {} was made in file {}, and this is a copy, file {}: it must not publish",
            home.store_id, home.stored, home.found
        ),
    };
    finding("file", &text, bad)
}

async fn sequence(tx: &mut SqliteConnection, handed_out: Seq) -> Result<Finding, StoreError> {
    let highest = handed_out.max(count(tx, HIGHEST).await?);
    let last = last_seq(tx).await?;
    let text = format!("the sequence stands at {last}, the highest seq in use is {highest}");
    let bad = (last < highest).then(|| (Severity::Error, set_sequence(highest)));
    Ok(finding("sequence", &text, bad))
}

fn wal(bytes: u64) -> Finding {
    let text = format!("the write-ahead log is {} MiB long", bytes / (1024 * 1024));
    let bad = (bytes > WAL_BYTES_ALARM).then(|| {
        let cure = "some program holds a read transaction open: find and end it (`fuser` on the \
                    -shm file lists them)";
        (Severity::Warning, cure.to_owned())
    });
    finding("wal_size", &text, bad)
}

fn orphans(count: i64) -> Finding {
    let text = format!("{count} delivery rows have lost their message");
    let bad = (count > 0).then(|| {
        let cure = "restore the messages from a backup, or discard the rows: DELETE FROM \
                    outbox_delivery WHERE seq NOT IN (SELECT seq FROM outbox_message)";
        (Severity::Error, cure.to_owned())
    });
    finding("orphans", &text, bad)
}

fn dead(count: i64) -> Finding {
    let text = format!("{count} messages are dead");
    let bad = (count > 0).then(|| {
        let cure = "look at them with `outbox dead list`, then resend or discard them";
        (Severity::Warning, cure.to_owned())
    });
    finding("dead", &text, bad)
}

fn unrouted(count: i64) -> Finding {
    let text = format!("{count} messages had a topic that no destination covers");
    let bad = (count > 0).then(|| {
        let cure = "look at their topics with `outbox status`; add a pattern, or mend the sender";
        (Severity::Warning, cure.to_owned())
    });
    finding("unrouted", &text, bad)
}
