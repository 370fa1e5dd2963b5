//! What the log holds, read back when no node has it open.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use outbox_broker_adapters::LogSource;
use outbox_core::{Record, Source};
use outbox_log_broker::{Log, LogOptions};
use outbox_tests::ledger::Entry;

/// Every record of every partition, each partition in its order.
pub async fn records(dir: &Path) -> anyhow::Result<Vec<Record>> {
    let source = LogSource::new(Log::open(LogOptions::new(dir))?);
    let source: Arc<dyn Source> = Arc::new(source);
    let mut all = Vec::new();
    for partition in source.partitions(&["*".parse()?]).await? {
        let mut offset = 0;
        loop {
            let records = source.fetch(&partition, offset, 1 << 20).await?;
            let Some(last) = records.last() else { break };
            offset = last.offset + 1;
            all.extend(records);
        }
    }
    Ok(all)
}

/// Records as ledger entries.
pub fn entries(records: &[Record]) -> anyhow::Result<Vec<Entry>> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
    records
        .iter()
        .map(|record| {
            Ok(Entry {
                topic: record.partition.topic.to_string(),
                key: record.key.as_deref().map(text).transpose()?,
                payload: text(&record.payload)?,
            })
        })
        .collect()
}

/// How many records have an id that an earlier one has.
pub fn duplicates(records: &[Record]) -> usize {
    let ids: HashSet<_> = records.iter().filter_map(|r| r.id).collect();
    records.len() - ids.len()
}
