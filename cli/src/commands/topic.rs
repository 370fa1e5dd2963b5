//! `outbox topic`: topics of a running broker.

use outbox_broker::client::{Admin, TopicDetail, TopicSummary};
use serde::Serialize;

use super::remote;
use crate::args::{Topic, TopicAlter, TopicCreate};
use crate::config::Settings;
use crate::exit::{Exit, Problem};
use crate::output::{Output, table};

/// Runs one of the sub-commands.
pub async fn run(topic: &Topic, settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let mut admin = remote::connect(&topic.remote, settings).await?;
    use crate::args::TopicCommand::{Alter, Create, Delete, Describe, List};
    match &topic.command {
        List => {
            let topics = admin.topics().await?;
            output.emit(&Listed { topics }, human_list)?;
        }
        Create(args) => create(args, &mut admin, output).await?,
        Describe { topic } => {
            let detail = admin.describe_topic(topic).await?;
            output.emit(&detail, human_detail)?;
        }
        Alter(args) => alter(args, &mut admin, output).await?,
        Delete { topic } => {
            admin.delete_topic(topic).await?;
            done(output, topic, "deleted")?;
        }
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct Listed {
    topics: Vec<TopicSummary>,
}

/// What was done to a topic, for `--json`.
#[derive(Debug, Serialize)]
struct Done<'a> {
    topic: &'a str,
    done: &'static str,
}

fn done(output: Output, topic: &str, done: &'static str) -> Result<(), Problem> {
    output.emit(&Done { topic, done }, |d| {
        format!("{}: {}", d.topic, d.done)
    })
}

async fn create(args: &TopicCreate, admin: &mut Admin, output: Output) -> Result<(), Problem> {
    let configs: Vec<(String, String)> = args.set.iter().map(|c| c.0.clone()).collect();
    let created = admin.create_topic(&args.topic, args.partitions, &configs);
    created.await?;
    done(output, &args.topic, "created")
}

async fn alter(args: &TopicAlter, admin: &mut Admin, output: Output) -> Result<(), Problem> {
    let set = args
        .set
        .iter()
        .map(|c| (c.0.0.clone(), Some(c.0.1.clone())));
    let unset = args.unset.iter().map(|key| (key.clone(), None));
    let configs: Vec<_> = set.chain(unset).collect();
    if !configs.is_empty() {
        admin.alter_topic(&args.topic, &configs).await?;
    }
    if let Some(partitions) = args.partitions {
        admin.grow_topic(&args.topic, partitions).await?;
    }
    done(output, &args.topic, "altered")
}

fn human_list(listed: &Listed) -> String {
    if listed.topics.is_empty() {
        return "none".to_owned();
    }
    let mut table = table(["TOPIC", "PARTITIONS"]);
    for topic in &listed.topics {
        table.add_row([topic.name.clone(), topic.partitions.to_string()]);
    }
    table.to_string()
}

fn human_detail(detail: &TopicDetail) -> String {
    let mut partitions = table(["PARTITION", "FIRST", "END", "RECORDS"]);
    for p in &detail.partitions {
        let records = (p.end - p.first).max(0);
        partitions
            .add_row([i64::from(p.partition), p.first, p.end, records].map(|n| n.to_string()));
    }
    let mut configs = table(["SETTING", "VALUE", "FROM"]);
    for entry in &detail.configs {
        let from = if entry.default { "default" } else { "topic" };
        let value = entry.value.as_deref().unwrap_or("***");
        configs.add_row([&entry.name, value, from]);
    }
    format!("{}\n\n{partitions}\n\n{configs}\n", detail.name)
}
