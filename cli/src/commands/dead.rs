//! `outbox dead`: messages that did not go through.

use chrono::Utc;
use outbox_core::{Admin, ExceptionFilter, ExceptionRow, MessageDetail, RequestAction, Selection};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::args::{DeadList, DeadMessages, DeadSelection};
use crate::exit::{Exit, Problem};
use crate::output::{Output, table};

/// Runs one of the sub-commands.
pub async fn run(dead: &DeadMessages, admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    let (args, action) = match dead {
        DeadMessages::List(args) => return list(args, admin, output).await,
        DeadMessages::Show { id } => return show(*id, admin, output).await,
        DeadMessages::Resend(args) => (args, RequestAction::Resend),
        DeadMessages::Discard(args) => (args, RequestAction::Discard),
        DeadMessages::Unblock(args) => (args, RequestAction::Unblock),
    };
    super::request(admin, &args.destination, action, &selection(args), output).await
}

fn selection(args: &DeadSelection) -> Selection {
    let now = Utc::now();
    match args.all {
        false => Selection::Ids(args.ids.clone()),
        true => Selection::Dead {
            since: args.since.map(|t| t.resolve(now)),
            until: args.until.map(|t| t.resolve(now)),
            expired: args.expired,
        },
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    exceptions: Vec<ExceptionRow>,
    /// Give it to --after for the next page; null at the end.
    next: Option<i64>,
}

async fn list(args: &DeadList, admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    let limit = args.limit as usize;
    let filter = ExceptionFilter {
        destination: args.destination.clone(),
        state: args.state.delivery(),
        after_seq: args.after,
        limit,
    };
    let exceptions = admin.exceptions(&filter).await?;
    let next = exceptions
        .last()
        .filter(|_| exceptions.len() == limit)
        .map(|row| row.seq);
    output.emit(&Listed { exceptions, next }, human_list)?;
    Ok(Exit::Ok)
}

fn human_list(listed: &Listed) -> String {
    if listed.exceptions.is_empty() {
        return "none".to_owned();
    }
    let mut table = table([
        "DESTINATION",
        "SEQ",
        "ID",
        "STATE",
        "ATTEMPTS",
        "TOPIC",
        "KEY",
        "LAST ERROR",
    ]);
    for row in &listed.exceptions {
        table.add_row([
            row.destination.clone(),
            row.seq.to_string(),
            row.id.to_string(),
            row.state.to_string(),
            row.attempts.to_string(),
            row.topic.clone(),
            row.key.clone().unwrap_or_default(),
            row.last_error.clone().unwrap_or_default(),
        ]);
    }
    let next = listed
        .next
        .map_or_else(String::new, |seq| format!("\nmore: --after {seq}\n"));
    format!("{table}\n{next}")
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    message: MessageDetail,
    /// JSON as it is, other text as a string, bytes as `{"hex": "…"}`.
    payload: Value,
}

async fn show(id: Uuid, admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    let message = admin.message(id).await?.ok_or_else(|| {
        let text = format!("find message {id}: it does not exist, or is past its retention");
        Problem::new(Exit::NotFound, text)
    })?;
    let payload = payload(&message.payload);
    output.emit(&Shown { message, payload }, human_message)?;
    Ok(Exit::Ok)
}

pub(super) fn payload(bytes: &[u8]) -> Value {
    if let Ok(json) = serde_json::from_slice(bytes) {
        return json;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}

fn human_message(shown: &Shown) -> String {
    let m = &shown.message;
    let mut text = format!(
        "id            {}\nseq           {}\ntopic         {}\nkey           {}\n\
         content type  {}\nenqueued      {}\n",
        m.id,
        m.seq,
        m.topic,
        m.key.as_deref().unwrap_or("(none)"),
        m.content_type,
        m.created_at.to_rfc3339(),
    );
    for (name, value) in &m.headers {
        text.push_str(&format!("header        {name}: {value}\n"));
    }
    for (destination, status) in &m.statuses {
        text.push_str(&format!("at {destination:<11}{status}\n"));
    }
    text.push_str(&format!("payload       {}\n", shown.payload));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shown_as_what_it_is() {
        assert_eq!(payload(b"{\"a\":1}"), serde_json::json!({"a": 1}));
        assert_eq!(payload(b"plain"), Value::String("plain".to_owned()));
        assert_eq!(payload(b"\xff\x00"), serde_json::json!({"hex": "ff00"}));
    }
}
