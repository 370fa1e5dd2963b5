//! `outbox group`: consumer groups of a running broker.

use chrono::Utc;
use outbox_broker::client::{
    Admin, GroupDetail, GroupMember, GroupOffset, GroupSummary, OffsetReset, ResetTo,
};
use serde::Serialize;

use super::remote;
use crate::args::{Group, GroupCommand, GroupReset};
use crate::config::Settings;
use crate::exit::{Exit, Problem};
use crate::output::{Output, table};

/// Runs one of the sub-commands.
pub async fn run(group: &Group, settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let mut admin = remote::connect(&group.remote, settings).await?;
    match &group.command {
        GroupCommand::List => {
            let groups = admin.groups().await?;
            output.emit(&Listed { groups }, human_list)?;
        }
        GroupCommand::Describe { group } => {
            let detail = Detail::from(admin.describe_group(group).await?);
            output.emit(&detail, human_detail)?;
        }
        GroupCommand::ResetOffsets(args) => reset(args, &mut admin, output).await?,
        GroupCommand::Delete { group } => {
            admin.delete_group(group).await?;
            let done = "deleted";
            output.emit(&Done { group, done }, |d| {
                format!("{}: {}", d.group, d.done)
            })?;
        }
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct Listed {
    groups: Vec<GroupSummary>,
}

#[derive(Debug, Serialize)]
struct Done<'a> {
    group: &'a str,
    done: &'static str,
}

/// A group, with how far behind it is.
#[derive(Debug, Serialize)]
struct Detail {
    group: String,
    state: String,
    protocol: String,
    members: Vec<GroupMember>,
    offsets: Vec<Offset>,
}

#[derive(Debug, Serialize)]
struct Offset {
    #[serde(flatten)]
    offset: GroupOffset,
    /// Null when the partition is gone.
    lag: Option<i64>,
}

impl From<GroupDetail> for Detail {
    fn from(detail: GroupDetail) -> Self {
        let offsets = detail.offsets.into_iter();
        Self {
            group: detail.group,
            state: detail.state,
            protocol: detail.protocol,
            members: detail.members,
            offsets: offsets
                .map(|offset| Offset {
                    lag: offset.lag(),
                    offset,
                })
                .collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Reset<'a> {
    group: &'a str,
    topic: &'a str,
    dry_run: bool,
    offsets: Vec<OffsetReset>,
}

async fn reset(args: &GroupReset, admin: &mut Admin, output: Output) -> Result<(), Problem> {
    let to = match (args.to_offset, args.to_time) {
        (Some(offset), _) => ResetTo::Offset(offset),
        (None, Some(time)) => ResetTo::Time(time.resolve(Utc::now()).timestamp_millis()),
        (None, None) if args.to_earliest => ResetTo::Earliest,
        (None, None) => ResetTo::Latest,
    };
    let (group, topic) = (args.group.as_str(), args.topic.as_str());
    let commit = !args.dry_run;
    let offsets = admin.reset_offsets(group, topic, args.partition, to, commit);
    let offsets = offsets.await?;
    let dry_run = args.dry_run;
    output.emit(
        &Reset {
            group,
            topic,
            dry_run,
            offsets,
        },
        human_reset,
    )
}

fn human_list(listed: &Listed) -> String {
    if listed.groups.is_empty() {
        return "none".to_owned();
    }
    let mut table = table(["GROUP", "STATE", "TYPE"]);
    for group in &listed.groups {
        table.add_row([&group.group, &group.state, &group.protocol_type]);
    }
    table.to_string()
}

fn human_detail(detail: &Detail) -> String {
    let mut members = table(["MEMBER", "INSTANCE", "CLIENT", "HOST"]);
    for m in &detail.members {
        let instance = m.instance.as_deref().unwrap_or("-");
        members.add_row([&m.id, instance, &m.client, &m.host]);
    }
    let mut offsets = table(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"]);
    let known = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    for Offset { offset, lag } in &detail.offsets {
        offsets.add_row([
            offset.topic.clone(),
            offset.partition.to_string(),
            offset.committed.to_string(),
            known(offset.end),
            known(*lag),
        ]);
    }
    format!(
        "{} ({})\n\n{members}\n\n{offsets}\n",
        detail.group, detail.state
    )
}

fn human_reset(reset: &Reset<'_>) -> String {
    let mut table = table(["TOPIC", "PARTITION", "BEFORE", "AFTER"]);
    for offset in &reset.offsets {
        let before = offset
            .before
            .map_or_else(|| "-".to_owned(), |n| n.to_string());
        let (partition, after) = (offset.partition.to_string(), offset.after.to_string());
        table.add_row([reset.topic.to_owned(), partition, before, after]);
    }
    let note = if reset.dry_run {
        "\nnothing was changed: --dry-run\n"
    } else {
        ""
    };
    format!("{table}\n{note}")
}
