//! A log on a simulated disk, and what its user knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields, Records};
use outbox_log_broker::{
    Append, AppendError, Appended, FetchError, Isolation, Log, LogOptions, OpenError, Producer,
    Publication, Sequence, Slice, TopicOptions, TransactionError,
};

use crate::disk::SimDisk;

/// The topic of every test.
pub const TOPIC: &str = "t";

/// The seed of a run: printed when it fails, and set again with `LOG_SEED`.
pub fn seed() -> u64 {
    let given = std::env::var("LOG_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| std::process::id().into())
}

/// Small files, so that every boundary is met often.
pub fn options() -> LogOptions {
    LogOptions {
        wal_file_bytes: 16 * 1024,
        checkpoint_bytes: 24 * 1024,
        wal_bytes_max: 64 * 1024,
        // Nothing happens in the background that a test does not know of.
        interval: Duration::from_secs(3600),
        ..LogOptions::new("/log")
    }
}

/// Opens the log on `disk`.
pub fn open(disk: &SimDisk) -> Result<Arc<Log>, OpenError> {
    Log::open_on(Arc::new(disk.clone()), options())
}

/// Runs a future to its end; the log's own threads do the work.
pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

/// Creates the topic with small segments.
pub fn create_topic(log: &Log, partitions: u32) -> Result<(), outbox_log_broker::TopicError> {
    let options = TopicOptions {
        partitions,
        segment_bytes: 3000,
        ..TopicOptions::default()
    };
    run(log.create_topic(TOPIC, options)).map(|_| ())
}

/// One batch of records with these values, all of that timestamp.
pub fn encode(buffer: &mut Vec<u8>, values: &[String], timestamp: i64) -> usize {
    let headers = HeaderBlock::default();
    let mut encoder = BatchEncoder::begin(buffer);
    for value in values {
        encoder.record(&RecordFields {
            timestamp,
            key: None,
            value: Some(value.as_bytes()),
            shared: &headers,
            own: &headers,
        });
    }
    encoder.finish().bytes
}

/// What a batch says about its producer.
#[derive(Clone, Copy, Debug)]
pub struct As {
    pub producer: Producer,
    pub sequence: i32,
    pub transactional: bool,
}

/// An append of one batch to a partition, by a producer.
pub fn append_as(who: As, partition: u32, values: &[String]) -> Append {
    as_producer(append_of(&[(partition, values.to_vec())]), who)
}

/// The same append of one batch, by a producer.
pub fn as_producer(mut append: Append, who: As) -> Append {
    let batch = &mut append.buffer;
    let attributes: i16 = if who.transactional { 0x10 } else { 0 };
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[43..51].copy_from_slice(&who.producer.id.to_be_bytes());
    batch[51..53].copy_from_slice(&who.producer.epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&who.sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    append
}

/// Appends one batch to a partition, by a producer.
pub fn produce(
    log: &Log,
    who: As,
    partition: u32,
    values: &[String],
) -> Result<Appended, AppendError> {
    run(log.append(append_as(who, partition, values)))
}

/// A producer with a transactional id, which counts its sequences.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub producer: Producer,
    pub sequences: BTreeMap<u32, i32>,
}

impl Client {
    /// Takes the id.
    pub fn try_begin(log: &Log, id: &str) -> Result<Self, TransactionError> {
        Ok(Self {
            id: id.to_owned(),
            producer: run(log.init_producer(Some(id), 60_000, None))?,
            sequences: BTreeMap::new(),
        })
    }

    /// Takes the id.
    pub fn begin(log: &Log, id: &str) -> Self {
        Self::try_begin(log, id).expect("an id")
    }

    /// Adds partitions to the transaction.
    pub fn add(&mut self, log: &Log, partitions: &[u32]) -> Result<(), TransactionError> {
        let partitions: Vec<_> = partitions.iter().map(|&n| (TOPIC.into(), n)).collect();
        run(log.transaction_add_partitions(&self.id, self.producer, &partitions))
    }

    /// Sends one value.
    pub fn send(&mut self, log: &Log, partition: u32, value: &str) -> Result<(), AppendError> {
        let sequence = self.sequences.entry(partition).or_default();
        let who = As {
            producer: self.producer,
            sequence: *sequence,
            transactional: true,
        };
        produce(log, who, partition, &[value.to_owned()])?;
        *sequence += 1;
        Ok(())
    }

    /// Ends the transaction.
    pub fn end(&mut self, log: &Log, commits: bool) -> Result<(), TransactionError> {
        run(log.transaction_end(&self.id, self.producer, commits))
    }
}

/// An append of values to partitions.
pub fn append_of(parts: &[(u32, Vec<String>)]) -> Append {
    let mut append = Append::default();
    for (partition, values) in parts {
        let bytes = encode(&mut append.buffer, values, 1000);
        append.slices.push(Slice {
            topic: TOPIC.into(),
            partition: *partition,
            bytes,
        });
    }
    append
}

/// Appends values to a partition of any topic, as one batch.
pub fn append_to(
    log: &Log,
    topic: &str,
    partition: u32,
    values: &[String],
) -> Result<Appended, AppendError> {
    let mut append = Append::default();
    let bytes = encode(&mut append.buffer, values, 1000);
    append.slices.push(Slice {
        topic: topic.into(),
        partition,
        bytes,
    });
    run(log.append(append))
}

/// Appends values to partitions.
pub fn append(log: &Log, parts: &[(u32, Vec<String>)]) -> Result<Appended, AppendError> {
    run(log.append(append_of(parts)))
}

/// Appends one record for each of these sequence numbers of the publisher, to one partition.
pub fn publish(
    log: &Log,
    epoch: i64,
    seqs: &[i64],
    done: Option<(i64, i64)>,
) -> Result<Appended, AppendError> {
    let values: Vec<String> = seqs.iter().map(|n| format!("seq-{n}")).collect();
    let parts = [(0, values)];
    let mut append = append_of(if seqs.is_empty() { &[] } else { &parts });
    append.publication = Some(Publication {
        publisher: "system/orders".into(),
        epoch,
        sequences: seqs
            .iter()
            .map(|&seq| Sequence { seq, redelivery: 0 })
            .collect(),
        done,
        except: Vec::new(),
        low_water: 0,
    });
    run(log.append(append))
}

/// Every value of a partition, in order; checks that offsets have no hole.
pub fn values(log: &Log, partition: u32) -> Result<Vec<String>, FetchError> {
    values_of(log, TOPIC, partition)
}

/// As [`values`], of any topic.
pub fn values_of(log: &Log, topic: &str, partition: u32) -> Result<Vec<String>, FetchError> {
    read(log, topic, partition, Isolation::Uncommitted)
}

/// What a reader of committed records gets, by the rules that Kafka's clients follow.
pub fn committed_values(log: &Log, partition: u32) -> Result<Vec<String>, FetchError> {
    read(log, TOPIC, partition, Isolation::Committed)
}

fn read(
    log: &Log,
    topic: &str,
    partition: u32,
    isolation: Isolation,
) -> Result<Vec<String>, FetchError> {
    let (mut offset, end) = log.offsets(topic, partition)?;
    let end = match isolation {
        Isolation::Uncommitted => end,
        Isolation::Committed => log.last_stable_offset(topic, partition)?,
    };
    let mut values = Vec::new();
    while offset < end {
        let fetched = log.fetch_isolated(topic, partition, offset, 700, isolation)?;
        let mut aborted = fetched.aborted;
        aborted.sort_by_key(|a| std::cmp::Reverse(a.first_offset));
        let mut skipped = BTreeSet::new();
        let mut rest = &fetched.batches[..];
        assert!(!rest.is_empty(), "nothing at offset {offset} of {end}");
        while !rest.is_empty() {
            let records = Records::new(rest).expect("a whole batch");
            let header = *records.header();
            rest = &rest[header.bytes..];
            while aborted
                .last()
                .is_some_and(|a| a.first_offset < header.next_offset())
            {
                skipped.extend(aborted.pop().map(|a| a.producer_id));
            }
            for record in records {
                let record = record.expect("a record");
                if record.offset < offset {
                    continue;
                }
                assert_eq!(record.offset, offset, "a hole");
                assert!(offset < end, "behind the last stable offset");
                offset += 1;
                if header.is_control() {
                    // Kind 0 is an abort.
                    if record.key.expect("a key")[3] == 0 {
                        skipped.remove(&header.producer_id);
                    }
                    continue;
                }
                if header.is_transactional() && skipped.contains(&header.producer_id) {
                    continue;
                }
                let value = record.value.expect("a value").to_vec();
                values.push(String::from_utf8(value).expect("text"));
            }
        }
    }
    Ok(values)
}

/// What a user of the log has been told.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// By partition: every value whose append was tried, in order, and whether it was
    /// acknowledged.
    pub tried: BTreeMap<u32, Vec<(String, bool)>>,
}

impl Known {
    /// Notes an append.
    pub fn note(&mut self, parts: &[(u32, Vec<String>)], acknowledged: bool) {
        for (partition, values) in parts {
            let tried = self.tried.entry(*partition).or_default();
            tried.extend(values.iter().map(|v| (v.clone(), acknowledged)));
        }
    }

    /// Checks a log against what is known: everything acknowledged is there, in order, and
    /// nothing that was never tried or already refused as a whole before it.
    pub fn check(&self, log: &Log, what: &str) {
        for (partition, tried) in &self.tried {
            let found = values(log, *partition).unwrap_or_else(|e| panic!("{what}: {e}"));
            self.check_partition(*partition, tried, &found, what);
        }
    }

    fn check_partition(&self, n: u32, tried: &[(String, bool)], found: &[String], what: &str) {
        let mut found = found.iter().peekable();
        for (value, acknowledged) in tried {
            if found.peek() == Some(&value) {
                found.next();
            } else {
                assert!(!acknowledged, "{what}: {value} of partition {n} is lost");
            }
        }
        assert_eq!(
            found.next(),
            None,
            "{what}: partition {n} holds what was never there"
        );
    }

    /// Forgets what turned out not to be stored, and takes the rest for acknowledged: it must
    /// stay as it is from now on.
    pub fn settle(&mut self, log: &Log) {
        for (partition, tried) in &mut self.tried {
            let found = values(log, *partition).expect("readable");
            *tried = found.into_iter().map(|v| (v, true)).collect();
        }
    }
}
