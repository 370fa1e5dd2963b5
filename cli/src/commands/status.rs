//! `outbox status`: the store at a glance.

use outbox_core::{Admin, DestinationStatus, Status};

use crate::exit::{Exit, Problem};
use crate::output::{Output, table, thousands};
use crate::time::short;

/// Runs the command.
pub async fn run(admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    output.emit(&admin.status().await?, human)?;
    Ok(Exit::Ok)
}

fn human(status: &Status) -> String {
    let mut table = table([
        "DESTINATION",
        "PENDING",
        "OLDEST",
        "PER SECOND",
        "RETRYING",
        "PARKED",
        "SCHEDULED",
        "DEAD",
        "EXPIRED",
        "GAPS",
        "LED BY",
        "BROKER",
    ]);
    for destination in &status.destinations {
        table.add_row(row(destination));
    }
    let mut text = format!(
        "{} messages taken so far\n\n{table}\n",
        thousands(seqs(status.last_seq))
    );
    if status.destinations.is_empty() {
        text =
            "no destination yet: `outbox relay` declares those of its configuration\n".to_owned();
    }
    for unrouted in &status.unrouted {
        text.push_str(&format!(
            "\nUNROUTED: {} messages of topic {:?} (seq {} to {}): no destination covers it\n",
            thousands(unrouted.count),
            unrouted.topic,
            unrouted.first,
            unrouted.last
        ));
    }
    text
}

fn row(d: &DestinationStatus) -> [String; 12] {
    let leader = match (&d.owner, d.paused) {
        (_, true) => "(paused)".to_owned(),
        (Some(owner), false) => owner.clone(),
        (None, false) => "(nobody)".to_owned(),
    };
    [
        d.name.clone(),
        thousands(d.pending),
        d.oldest_pending_seconds
            .map_or_else(|| "-".to_owned(), short),
        format!("{:.0}", d.seqs_per_second),
        thousands(d.retrying),
        thousands(d.parked),
        thousands(d.scheduled),
        thousands(d.dead),
        thousands(d.expired),
        thousands(d.gaps),
        leader,
        d.broker.clone(),
    ]
}

/// A seq starts at 1, so it is also a count.
fn seqs(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}
