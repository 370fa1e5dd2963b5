//! `outbox dead redrive`: records that a consumer gave up, once more.
//!
//! A record goes to the end of its topic, and its dead letter is forgotten when it is durable there. A
//! kill between the two leaves both, and the next try puts the record in twice: the inbox applies it
//! once, by its message's id. A record without one is refused, for nobody could tell it from a new one.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use outbox_broker_adapters::ConnectError;
use outbox_core::{
    Batch, Broker, DeadLetterContent, Fence, Headers, Outcome, Pending, PublishError, Receipt, Seq,
};
use serde::Serialize;
use uuid::Uuid;

use super::open;
use crate::args;
use crate::config::Settings;
use crate::exit::{Exit, Problem};
use crate::output::{Output, table};

/// Publishers of the log have names of two parts; this is the first, where relays have their store.
const PUBLISHER: &str = "redrive";

/// Of a record that did not say what it is.
const UNKNOWN_TYPE: &str = "application/octet-stream";

#[derive(Debug, Serialize)]
struct Redriven {
    redriven: Vec<PutBack>,
}

#[derive(Debug, Serialize)]
struct PutBack {
    id: i64,
    message_id: Uuid,
    topic: String,
    partition: Option<i32>,
    offset: Option<i64>,
}

/// Runs the command.
pub async fn run(
    args: &args::Redrive,
    settings: &Settings,
    output: Output,
) -> Result<Exit, Problem> {
    let inbox = open(&settings.store).await?;
    // Everything is looked at before anything is done.
    let mut letters = Vec::new();
    let first = Utc::now().timestamp_micros();
    for (seq, &id) in (first..).zip(&args.ids) {
        let content = inbox.content(id).await?;
        letters.push((id, content.letter.consumer.clone(), pending(seq, content)?));
    }
    let broker = outbox_broker_adapters::connect(&args.broker)
        .await
        .map_err(|error| unopened(&error))?;
    let mut redriven = Vec::new();
    for (id, consumer, message) in letters {
        let (message_id, topic) = (message.id, message.topic.to_string());
        let receipt = put_back(&*broker, id, &consumer, message).await?;
        inbox.remove(id).await?;
        redriven.push(PutBack {
            id,
            message_id,
            topic,
            partition: receipt.partition,
            offset: receipt.offset,
        });
    }
    output.emit(&Redriven { redriven }, human)?;
    Ok(Exit::Ok)
}

async fn put_back(
    broker: &dyn Broker,
    id: i64,
    consumer: &str,
    message: Pending,
) -> Result<Receipt, Problem> {
    let what = format!("put back dead letter {id}");
    let batch = Batch {
        fence: Fence {
            incarnation: PUBLISHER.into(),
            destination: consumer.into(),
            epoch: 0,
        },
        // Seqs are times: nothing before this one comes again, and the broker may forget it.
        low_water: message.seq,
        messages: vec![message],
        range: None,
        except: Vec::new(),
    };
    let outcomes = broker.publish(&batch).await.map_err(|error| {
        let exit = match error {
            PublishError::Outage(_) => Exit::Unreachable,
            PublishError::Fenced { .. } => Exit::Refused,
        };
        Problem::new(exit, format!("{what}: {error}"))
    })?;
    match outcomes.into_iter().next() {
        Some(Outcome::Sent(receipt)) if !receipt.duplicate => Ok(receipt),
        Some(Outcome::Failed(failure)) => {
            Err(Problem::new(Exit::Refused, format!("{what}: {failure}")))
        }
        // Two at the same microsecond: the other one's was stored, not this one's.
        _ => Err(Problem::new(Exit::Failed, format!("{what}: run it again"))),
    }
}

/// The record as a message of an outbox, which it was.
fn pending(seq: Seq, content: DeadLetterContent) -> Result<Pending, Problem> {
    let letter = content.letter;
    let refused = |reason: &str| {
        let text = format!("put back dead letter {}: {reason}", letter.id);
        Problem::new(Exit::Refused, text)
    };
    let id = letter.message_id.ok_or_else(|| {
        refused(
            "its record has no message id, so that other consumers could not tell it from a new \
             one. Cure: have its producer send it again",
        )
    })?;
    let key = content.key.map(String::from_utf8).transpose();
    let key = key.map_err(|_| refused("its key is not UTF-8, which an outbox' keys are"))?;
    let headers: Headers = serde_json::from_str(&content.headers)
        .map_err(|error| refused(&format!("its headers cannot be read: {error}")))?;
    Ok(Pending {
        seq,
        id,
        topic: letter.topic.as_str().into(),
        key: key.map(Arc::from),
        payload: content.payload.into(),
        content_type: content
            .content_type
            .as_deref()
            .unwrap_or(UNKNOWN_TYPE)
            .into(),
        headers: (!headers.is_empty()).then(|| Arc::new(headers)),
        created_at: enqueued_at(id).unwrap_or(letter.dead_at),
        deliver_after: None,
        expires_at: None,
        late: false,
        attempts: 0,
        redelivery: 0,
    })
}

/// When a message was enqueued, as far as its id says.
fn enqueued_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(seconds.try_into().ok()?, nanos)
}

fn unopened(error: &ConnectError) -> Problem {
    Problem::new(error.into(), format!("open the log of --broker: {error}"))
}

fn human(redriven: &Redriven) -> String {
    let mut table = table(["ID", "MESSAGE", "TOPIC", "PARTITION", "OFFSET"]);
    let or_none = |number: Option<i64>| number.map_or_else(String::new, |n| n.to_string());
    for put in &redriven.redriven {
        table.add_row([
            put.id.to_string(),
            put.message_id.to_string(),
            put.topic.clone(),
            or_none(put.partition.map(i64::from)),
            or_none(put.offset),
        ]);
    }
    table.to_string()
}
