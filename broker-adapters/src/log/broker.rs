//! Publishes to the bundled log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use outbox_broker::client::{Client, ClientOptions};
use outbox_core::{
    Batch, Broker, Capabilities, Class, Failure, Outcome, Pending, PublishError, Receipt,
};
use outbox_log_broker::batch::{BatchEncoder, RecordFields, record_bytes};
use outbox_log_broker::{Append, Log, Publication, Sequence, Slice, TopicOptions, limits};

use super::headers::HeaderWriter;
use super::home::{Home, Stored, permanent};
use super::partition;

/// Where a record batch is ended and the next begun, in bytes. A reader in the middle of a batch
/// decodes it from its front, so that large batches cost readers; 61 bytes of head for each.
const BATCH_BYTES_TARGET: usize = 128 * 1024;
/// Part of an append that is left for what the encoded size exceeds its estimate by, and for the
/// entries of its frame.
const APPEND_MARGIN: usize = 8;
/// Buffers kept for later batches: one batch in flight for each destination is the usual case.
const BUFFERS_MAX: usize = 4;

/// How [`LogBroker`] lays out topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBrokerOptions {
    /// Partitions of a topic that is created because a message names it. Default 16: enough for
    /// sixteen consumers of one group. It cannot be changed later, for it decides where a key
    /// goes.
    pub partitions: u32,
    /// Largest record, in bytes; a larger one fails for good. Default and most
    /// [`limits::BATCH_BYTES_MAX`] less the head of its batch.
    pub record_bytes_max: usize,
}

impl Default for LogBrokerOptions {
    fn default() -> Self {
        Self {
            partitions: TopicOptions::default().partitions,
            record_bytes_max: limits::BATCH_BYTES_MAX - BATCH_OVERHEAD_BYTES,
        }
    }
}

/// Room for the head of a batch.
const BATCH_OVERHEAD_BYTES: usize = 1024;

/// The bundled log as a broker: ordered, fenced, and duplicate-proof.
///
/// A message goes to the topic of its own name, which is created when it is first named, and to
/// the partition that Kafka's default partitioner gives its key; messages without a key go
/// together to one partition for each batch, in turn. A duplicate's receipt has no offset.
#[derive(Debug)]
pub struct LogBroker {
    home: Home,
    options: LogBrokerOptions,
    /// Turns of messages without a key.
    turn: AtomicU32,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl LogBroker {
    /// A broker on an open log, with the default options.
    pub fn new(log: Arc<Log>) -> Self {
        Self::with_options(log, LogBrokerOptions::default())
    }

    /// A broker on an open log.
    pub fn with_options(log: Arc<Log>, options: LogBrokerOptions) -> Self {
        Self::at(Home::Here(log), options)
    }

    /// The log that a broker serves over the network. It connects when it is first used.
    pub fn remote(client: ClientOptions, options: LogBrokerOptions) -> Self {
        Self::at(Home::there(Client::new(client)), options)
    }

    fn at(home: Home, options: LogBrokerOptions) -> Self {
        Self {
            home,
            options,
            turn: AtomicU32::new(0),
            buffers: Mutex::default(),
        }
    }

    fn buffer(&self) -> Vec<u8> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
    }

    /// The partitions of each topic that `messages` name; topics that are not there are created.
    /// `Err` inside for a topic that cannot be.
    async fn topics(&self, messages: &[Pending]) -> Result<Topics, PublishError> {
        let mut topics = Topics::default();
        for message in messages {
            if topics.find(&message.topic).is_some() {
                continue;
            }
            let partitions = self
                .home
                .topic(&message.topic, self.options.partitions)
                .await?;
            topics.push(message.topic.clone(), partitions);
        }
        Ok(topics)
    }

    /// Appends the messages that `chosen` names, those that are not stored yet.
    async fn append(
        &self,
        batch: &Batch,
        mut chosen: Vec<Placed>,
        closing: Option<&Closing>,
        topics: &Topics,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), PublishError> {
        loop {
            chosen.sort_by_key(|p| (p.topic, p.partition));
            let mut append = self.encode(batch, &chosen, topics);
            append.publication = Some(publication(batch, &chosen, closing));
            let slices = slice_lengths(&chosen);
            match self.home.append(append).await? {
                Stored::New {
                    first_offsets,
                    buffer,
                } => {
                    let mut placed = chosen.iter();
                    for (records, first) in slices.into_iter().zip(&first_offsets) {
                        for (n, p) in placed.by_ref().take(records).enumerate() {
                            outcomes[p.message] = Some(sent(p, Some(first + n as i64)));
                        }
                    }
                    self.give_back(buffer);
                    return Ok(());
                }
                Stored::Already { indexes } => {
                    for n in indexes {
                        if let Some(placed) = chosen.get(n) {
                            outcomes[placed.message] = Some(sent(placed, None));
                        }
                    }
                    let before = chosen.len();
                    chosen.retain(|p| outcomes[p.message].is_none());
                    if chosen.len() == before {
                        let text = "the broker names duplicates that were not sent".to_owned();
                        return Err(PublishError::Outage(text));
                    }
                }
            }
        }
    }

    /// Encodes messages that are sorted by topic and partition.
    fn encode(&self, batch: &Batch, chosen: &[Placed], topics: &Topics) -> Append {
        let mut buffer = self.buffer();
        let mut slices = Vec::new();
        let mut headers = HeaderWriter::default();
        for run in chosen.chunk_by(|a, b| a.place() == b.place()) {
            let start = buffer.len();
            let mut rest = run;
            while !rest.is_empty() {
                let mut encoder = BatchEncoder::begin(&mut buffer);
                while let Some((placed, tail)) = rest.split_first() {
                    let message = &batch.messages[placed.message];
                    let room = encoder.bytes() + placed.bytes <= limits::BATCH_BYTES_MAX;
                    let full = encoder.bytes() >= BATCH_BYTES_TARGET || !room;
                    if encoder.records() > 0 && full {
                        break;
                    }
                    let (shared, own) = headers.write(message);
                    encoder.record(&RecordFields {
                        timestamp: message.created_at.timestamp_millis(),
                        key: message.key.as_deref().map(str::as_bytes),
                        value: Some(&message.payload),
                        shared,
                        own,
                    });
                    rest = tail;
                }
                encoder.finish();
            }
            slices.push(Slice {
                topic: topics.name(run[0].topic),
                partition: run[0].partition,
                bytes: buffer.len() - start,
            });
        }
        Append {
            buffer,
            slices,
            publication: None,
        }
    }

    /// Gives each message its place, or its failure. Behind a message that failed, none of its
    /// key may be stored.
    fn place(
        &self,
        batch: &Batch,
        topics: &Topics,
        outcomes: &mut [Option<Outcome>],
    ) -> Vec<Placed> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut failed: HashMap<(&str, &str), ()> = HashMap::new();
        let mut placed = Vec::with_capacity(batch.messages.len());
        let empty = Default::default();
        for (n, message) in batch.messages.iter().enumerate() {
            let domain = message.key.as_deref().map(|key| (&*message.topic, key));
            if !failed.is_empty() && domain.is_some_and(|d| failed.contains_key(&d)) {
                outcomes[n] = Some(Outcome::Failed(behind()));
                continue;
            }
            let estimate = message.size()
                + PER_RECORD_BYTES
                + record_bytes(&RecordFields {
                    timestamp: 0,
                    key: None,
                    value: None,
                    shared: &empty,
                    own: &empty,
                });
            let place = topics
                .find(&message.topic)
                .map(|t| (t, topics.partitions(t)));
            let failure = match place {
                Some((_, Err(failure))) => failure,
                _ if estimate > self.record_bytes_max() => self.too_large(estimate),
                Some((topic, Ok(partitions))) => {
                    placed.push(Placed {
                        message: n,
                        topic,
                        partition: match &message.key {
                            Some(key) => partition::of_key(key.as_bytes(), partitions),
                            None => turn % partitions,
                        },
                        bytes: estimate,
                    });
                    continue;
                }
                None => permanent(format!("topic {:?} is not there", message.topic)),
            };
            failed.extend(domain.map(|d| (d, ())));
            outcomes[n] = Some(Outcome::Failed(failure));
        }
        placed
    }

    fn record_bytes_max(&self) -> usize {
        let append = self.append_bytes();
        self.options.record_bytes_max.min(append)
    }

    /// Estimated bytes at which an append is sent off.
    fn append_bytes(&self) -> usize {
        let max = self.home.append_bytes_max();
        max - max / APPEND_MARGIN
    }

    fn too_large(&self, bytes: usize) -> Failure {
        permanent(format!(
            "the record takes up to {bytes} bytes, the log's limit is {}",
            self.record_bytes_max()
        ))
    }
}

/// Upper bound of what a record takes besides topic, key, payload and headers: CloudEvents
/// attributes, their names, content type, lengths.
const PER_RECORD_BYTES: usize = 512;

#[async_trait]
impl Broker for LogBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            ordered_batches: true,
            fences: true,
            drops_duplicates: true,
        }
    }

    async fn publish(&self, batch: &Batch) -> Result<Vec<Outcome>, PublishError> {
        let topics = self.topics(&batch.messages).await?;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; batch.messages.len()];
        let placed = self.place(batch, &topics, &mut outcomes);
        let closing = Closing::of(batch, &outcomes);
        // One append, unless the batch is larger than one may be; then the last one closes the
        // batch's stretch of the log.
        let mut parts = split(placed, self.append_bytes());
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.append(batch, part, None, &topics, &mut outcomes)
                .await?;
        }
        self.append(batch, last, Some(&closing), &topics, &mut outcomes)
            .await?;
        let unanswered = || Outcome::Failed(behind());
        let outcomes = outcomes.into_iter();
        Ok(outcomes.map(|o| o.unwrap_or_else(unanswered)).collect())
    }
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// Which message of the batch.
    message: usize,
    /// Which of [`Topics`].
    topic: usize,
    partition: u32,
    /// At most so many bytes.
    bytes: usize,
}

impl Placed {
    fn place(&self) -> (usize, u32) {
        (self.topic, self.partition)
    }
}

/// What is done for good with a batch's stretch of the log.
struct Closing {
    done: Option<(i64, i64)>,
    except: Vec<(i64, i64)>,
}

impl Closing {
    /// The stretch, less what may still come: what the batch excepts, and what failed here.
    fn of(batch: &Batch, outcomes: &[Option<Outcome>]) -> Self {
        let failed = batch.messages.iter().zip(outcomes);
        let failed = failed.filter(|(_, o)| matches!(o, Some(Outcome::Failed(_))));
        let mut except = batch.except.clone();
        except.extend(failed.map(|(m, _)| (m.seq, m.seq)));
        except.sort_unstable();
        Self {
            done: batch.range,
            except,
        }
    }
}

/// The few topics of one batch.
#[derive(Debug, Default)]
struct Topics(Vec<(Arc<str>, Result<u32, Failure>)>);

impl Topics {
    fn push(&mut self, name: Arc<str>, partitions: Result<u32, Failure>) {
        self.0.push((name, partitions));
    }

    /// Messages of a page mostly share the name itself.
    fn find(&self, name: &Arc<str>) -> Option<usize> {
        let same = self.0.iter().position(|(n, _)| Arc::ptr_eq(n, name));
        same.or_else(|| self.0.iter().position(|(n, _)| n == name))
    }

    fn name(&self, topic: usize) -> Arc<str> {
        self.0[topic].0.clone()
    }

    fn partitions(&self, topic: usize) -> Result<u32, Failure> {
        self.0[topic].1.clone()
    }
}

fn publication(batch: &Batch, chosen: &[Placed], closing: Option<&Closing>) -> Publication {
    let fence = &batch.fence;
    let messages = chosen.iter().map(|p| &batch.messages[p.message]);
    Publication {
        publisher: format!("{}/{}", fence.incarnation, fence.destination).into(),
        epoch: fence.epoch,
        sequences: messages
            .map(|m| Sequence {
                seq: m.seq,
                redelivery: m.redelivery,
            })
            .collect(),
        done: closing.and_then(|c| c.done),
        except: closing.map(|c| c.except.clone()).unwrap_or_default(),
        low_water: batch.low_water,
    }
}

/// Consecutive messages whose estimates fit an append each.
fn split(placed: Vec<Placed>, bytes_max: usize) -> Vec<Vec<Placed>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for p in placed {
        bytes += p.bytes;
        if bytes > bytes_max {
            parts.push(Vec::new());
            bytes = p.bytes;
        }
        if let Some(part) = parts.last_mut() {
            part.push(p);
        }
    }
    parts
}

/// Records of each run of messages with the same place.
fn slice_lengths(chosen: &[Placed]) -> Vec<usize> {
    let runs = chosen.chunk_by(|a, b| a.place() == b.place());
    runs.map(<[Placed]>::len).collect()
}

fn sent(placed: &Placed, offset: Option<i64>) -> Outcome {
    Outcome::Sent(Receipt {
        partition: Some(placed.partition as i32),
        offset,
        duplicate: offset.is_none(),
    })
}

fn behind() -> Failure {
    Failure {
        class: Class::Transient,
        maybe_accepted: false,
        text: "not sent: an earlier message of its key in the same batch was refused".to_owned(),
    }
}
