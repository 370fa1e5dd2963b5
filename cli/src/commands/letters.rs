//! `outbox dead letters` and `outbox dead letter`: records that a consumer gave up.
//!
//! They are in the inbox, which is in the consumer's own database: `--store` names that.

mod redrive;

use outbox_core::{DeadLetter, DeadLetterContent, DeadLetterFilter, InboxError};
use outbox_postgres::{PostgresInbox, PostgresOptions, PostgresStore};
use outbox_sqlite::SqliteInbox;
use serde::Serialize;
use serde_json::Value;

use super::dead::payload;
use crate::args::{Letters, LettersList};
use crate::config::{Settings, StoreSettings};
use crate::exit::{Exit, Problem};
use crate::output::{Output, table};
use crate::store::StoreUrl;

/// The inbox, whichever database it is in.
enum Inbox {
    Postgres(PostgresInbox),
    Sqlite(SqliteInbox),
}

#[derive(Debug, Serialize)]
struct Listed {
    letters: Vec<DeadLetter>,
    /// Give it to --after for the next page; null at the end.
    next: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: DeadLetter,
    /// JSON as it is, other text as a string, bytes as `{"hex": "…"}`; null when there is none.
    key: Option<Value>,
    content_type: Option<String>,
    headers: Value,
    /// As `key`.
    payload: Value,
}

/// Runs one of the sub-commands.
pub async fn run(letters: &Letters, settings: &Settings, output: Output) -> Result<Exit, Problem> {
    match letters {
        Letters::List(args) => list(args, settings, output).await,
        Letters::Show { id } => show(*id, settings, output).await,
        Letters::Redrive(args) => redrive::run(args, settings, output).await,
    }
}

async fn list(args: &LettersList, settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let filter = DeadLetterFilter {
        consumer: args.consumer.clone(),
        applied_since: args.all,
        after: args.after,
        limit: args.limit,
    };
    let letters = match open(&settings.store).await? {
        Inbox::Postgres(inbox) => inbox.dead_letters(&filter).await,
        Inbox::Sqlite(inbox) => inbox.dead_letters(&filter).await,
    };
    let letters = letters.map_err(problem)?;
    let full = letters.len() == args.limit as usize;
    let next = letters.last().filter(|_| full).map(|letter| letter.id);
    output.emit(&Listed { letters, next }, human_list)?;
    Ok(Exit::Ok)
}

async fn show(id: i64, settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let content = open(&settings.store).await?.content(id).await?;
    output.emit(&Shown::from(content), human_letter)?;
    Ok(Exit::Ok)
}

impl Inbox {
    /// One letter with what it says.
    async fn content(&self, id: i64) -> Result<DeadLetterContent, Problem> {
        let content = match self {
            Self::Postgres(inbox) => inbox.dead_letter_content(id).await,
            Self::Sqlite(inbox) => inbox.dead_letter_content(id).await,
        };
        content.map_err(problem)?.ok_or_else(|| {
            let text =
                format!("find dead letter {id}: `outbox dead letters --all` shows what there is");
            Problem::new(Exit::NotFound, text)
        })
    }

    async fn remove(&self, id: i64) -> Result<bool, Problem> {
        let removed = match self {
            Self::Postgres(inbox) => inbox.remove_dead_letter(id).await,
            Self::Sqlite(inbox) => inbox.remove_dead_letter(id).await,
        };
        removed.map_err(problem)
    }
}

async fn open(settings: &StoreSettings) -> Result<Inbox, Problem> {
    let config = |text| Problem::new(Exit::Config, text);
    match StoreUrl::parse(settings.url.expose()).map_err(config)? {
        StoreUrl::Postgres(url) => {
            let (schema, pooled) = (settings.schema.clone(), settings.pooled);
            let options = PostgresOptions {
                url,
                schema,
                pooled,
            };
            let inbox = PostgresStore::connect(options).await?.inbox();
            Ok(Inbox::Postgres(inbox))
        }
        StoreUrl::Sqlite(path) if !path.exists() => {
            let text = format!("open the inbox: {} does not exist", path.display());
            Err(Problem::new(Exit::Schema, text))
        }
        StoreUrl::Sqlite(path) => {
            let pool = outbox_sqlite::pool(&path).await?;
            Ok(Inbox::Sqlite(SqliteInbox::new(pool)))
        }
    }
}

fn problem(error: InboxError) -> Problem {
    let text = error.to_string();
    match error {
        InboxError::Outage(_) => Problem::new(Exit::Unreachable, text),
        InboxError::Other(_)
            if text.contains("no such table") || text.contains("does not exist") =>
        {
            let cure = "no inbox is there. Cure: name the consumer's database with --store (and \
                        its schema with --schema); its inbox makes the tables by migrate()";
            Problem::new(Exit::Schema, format!("{text}: {cure}"))
        }
        InboxError::Other(_) => Problem::new(Exit::Failed, text),
    }
}

impl From<DeadLetterContent> for Shown {
    fn from(content: DeadLetterContent) -> Self {
        Self {
            letter: content.letter,
            key: content.key.as_deref().map(payload),
            content_type: content.content_type,
            headers: serde_json::from_str(&content.headers).unwrap_or_default(),
            payload: payload(&content.payload),
        }
    }
}

fn human_list(listed: &Listed) -> String {
    if listed.letters.is_empty() {
        return "none".to_owned();
    }
    let mut table = table([
        "ID",
        "CONSUMER",
        "MESSAGE",
        "TOPIC",
        "PARTITION",
        "OFFSET",
        "ATTEMPTS",
        "DEAD SINCE",
        "ERROR",
    ]);
    for letter in &listed.letters {
        table.add_row([
            letter.id.to_string(),
            letter.consumer.clone(),
            letter
                .message_id
                .map_or_else(|| "-".to_owned(), |id| id.to_string()),
            letter.topic.clone(),
            letter.partition.to_string(),
            letter.offset.to_string(),
            letter.attempts.to_string(),
            letter.dead_at.to_rfc3339(),
            letter.error.clone(),
        ]);
    }
    let next = listed
        .next
        .map_or_else(String::new, |id| format!("\nmore: --after {id}\n"));
    format!("{table}\n{next}")
}

fn human_letter(shown: &Shown) -> String {
    let letter = &shown.letter;
    let message = letter
        .message_id
        .map_or_else(|| "(none)".to_owned(), |id| id.to_string());
    let key = shown
        .key
        .as_ref()
        .map_or_else(|| "(none)".to_owned(), Value::to_string);
    let mut text = format!(
        "consumer      {}\nmessage       {message}\nrecord        {}-{} offset {}\n\
         dead since    {}\nattempts      {}\nerror         {}\nkey           {key}\n\
         content type  {}\n",
        letter.consumer,
        letter.topic,
        letter.partition,
        letter.offset,
        letter.dead_at.to_rfc3339(),
        letter.attempts,
        letter.error,
        shown.content_type.as_deref().unwrap_or("(none)"),
    );
    for (name, value) in shown.headers.as_object().into_iter().flatten() {
        text.push_str(&format!("header        {name}: {value}\n"));
    }
    text.push_str(&format!("payload       {}\n", shown.payload));
    text
}
