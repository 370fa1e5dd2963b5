//! What the documentation lists is what the code has.

use outbox_consumer::metrics;

#[test]
fn every_metric_is_in_the_documentation_with_its_kind_and_meaning() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/consumer.md");
    let page = std::fs::read_to_string(page).expect("docs/consumer.md");
    for (name, kind, meaning) in metrics::TABLE {
        let row = format!("| `{name}` | {kind} | {meaning} |");
        assert!(page.contains(&row), "docs/consumer.md has no row\n{row}");
    }
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `outbox_consumer_"));
    assert_eq!(
        rows.count(),
        metrics::TABLE.len(),
        "docs/consumer.md lists a metric too many"
    );
}
