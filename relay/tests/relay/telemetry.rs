//! The table for people and the code say the same.

use std::collections::BTreeSet;
use std::path::Path;

use outbox_relay::METRICS;

#[test]
fn the_table_of_metrics_is_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/telemetry.md");
    let text = std::fs::read_to_string(path).expect("docs/telemetry.md");
    let documented: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("| `outbox_relay_"))
        .map(str::to_owned)
        .collect();
    let exported: BTreeSet<String> = METRICS
        .iter()
        .map(|m| {
            let labels = match m.labels {
                [] => "–".to_owned(),
                labels => labels.join(", "),
            };
            format!("| `{}` | {} | {labels} | {} |", m.name, m.kind, m.help)
        })
        .collect();
    assert_eq!(documented, exported);
}
