//! Where the bundled log is: in this process, or behind an address.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use outbox_broker::client::{Client, ClientError, PublishAnswer, PublishRefusal};
use outbox_core::{Class, Failure, PublishError};
use outbox_log_broker::{Append, AppendError, Log, TopicError, TopicOptions, limits};

/// How long the number of a topic's partitions is believed. It only ever grows, and only by hand.
const TOPICS_TTL: Duration = Duration::from_secs(60);

/// The bundled log, wherever it is.
#[derive(Debug)]
pub(super) enum Home {
    /// Opened by this process.
    Here(Arc<Log>),
    /// Served by a broker.
    There(Box<Remote>),
}

/// What was stored, or what need not be.
pub(super) enum Stored {
    /// Offset of the first record of each slice, and a buffer to be used again.
    New {
        first_offsets: Vec<i64>,
        buffer: Vec<u8>,
    },
    /// Nothing was: these records are there already.
    Already { indexes: Vec<usize> },
}

impl Home {
    /// The log behind an address.
    pub fn there(client: Client) -> Self {
        Self::There(Box::new(Remote {
            client,
            topics: Mutex::default(),
            probed: AtomicBool::new(false),
        }))
    }

    /// The number of partitions of a topic, which is created if it is not there; or why it cannot
    /// be.
    pub async fn topic(
        &self,
        name: &Arc<str>,
        partitions: u32,
    ) -> Result<Result<u32, Failure>, PublishError> {
        match self {
            Self::Here(log) => {
                let options = TopicOptions {
                    partitions,
                    ..TopicOptions::default()
                };
                match log.create_topic(name, options).await {
                    Ok(options) => Ok(Ok(options.partitions)),
                    Err(TopicError::Append(error)) => Err(outage(&error)),
                    Err(error) => Ok(Err(permanent(error.to_string()))),
                }
            }
            Self::There(remote) => remote.topic(name, partitions).await,
        }
    }

    /// Appends what has a publication.
    pub async fn append(&self, append: Append) -> Result<Stored, PublishError> {
        match self {
            Self::Here(log) => match log.append(append).await {
                Ok(appended) => Ok(Stored::New {
                    first_offsets: appended.first_offsets,
                    buffer: appended.buffer,
                }),
                // The log tells of a duplicate only when the original is durable.
                Err(AppendError::Duplicates { indexes }) => Ok(Stored::Already { indexes }),
                Err(AppendError::Fenced { epoch, newer, .. }) => {
                    Err(PublishError::Fenced { epoch, newer })
                }
                Err(error) => Err(outage(&error)),
            },
            Self::There(remote) => remote.append(append).await,
        }
    }

    /// Most bytes of one append.
    pub fn append_bytes_max(&self) -> usize {
        match self {
            Self::Here(log) => log.append_bytes_max(),
            // The broker's log has WAL files of the default size, which take the largest append.
            Self::There(_) => limits::APPEND_BYTES_MAX,
        }
    }
}

/// A log behind an address.
#[derive(Debug)]
pub(super) struct Remote {
    client: Client,
    /// Topics that are there, with their partitions, and when that was.
    topics: Mutex<HashMap<Arc<str>, (u32, Instant)>>,
    /// The broker has shown that it is one of ours.
    probed: AtomicBool,
}

impl Remote {
    async fn topic(
        &self,
        name: &Arc<str>,
        partitions: u32,
    ) -> Result<Result<u32, Failure>, PublishError> {
        let known = self.known().get(name).copied();
        if let Some((partitions, since)) = known
            && since.elapsed() < TOPICS_TTL
        {
            return Ok(Ok(partitions));
        }
        match self.client.create_topic(name, partitions).await {
            Ok(partitions) => {
                let now = Instant::now();
                self.known().insert(name.clone(), (partitions, now));
                Ok(Ok(partitions))
            }
            Err(error) if is_permanent(&error) => Ok(Err(permanent(error.to_string()))),
            Err(error) => Err(PublishError::Outage(error.to_string())),
        }
    }

    async fn append(&self, append: Append) -> Result<Stored, PublishError> {
        let publication = append.publication.unwrap_or_default();
        self.probe().await?;
        let batches = Bytes::from(append.buffer);
        let published = self
            .client
            .publish(batches, &append.slices, &publication)
            .await;
        let refusal = match published {
            Ok(PublishAnswer::Stored { first_offsets }) => {
                return Ok(Stored::New {
                    first_offsets,
                    buffer: Vec::new(),
                });
            }
            Ok(PublishAnswer::Duplicates { indexes }) => return Ok(Stored::Already { indexes }),
            Err(refusal) => refusal,
        };
        // A topic may be gone, or have been made anew.
        self.known().clear();
        Err(refused(refusal))
    }

    /// Asks once, before anything else: some other broker would store every batch and know nothing
    /// of duplicates.
    async fn probe(&self) -> Result<(), PublishError> {
        if self.probed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.client.check_publishes().await.map_err(refused)?;
        self.probed.store(true, Ordering::Release);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, (u32, Instant)>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(refusal: PublishRefusal) -> PublishError {
    match refusal {
        PublishRefusal::Fenced { epoch, newer } => PublishError::Fenced { epoch, newer },
        other => PublishError::Outage(other.to_string()),
    }
}

/// Whether the topic can never be created: Kafka's codes for an invalid name or number, and for
/// what a policy or a right forbids.
fn is_permanent(error: &ClientError) -> bool {
    const INVALID_TOPIC: i16 = 17;
    const INVALID_PARTITIONS: i16 = 37;
    const POLICY_VIOLATION: i16 = 44;
    let permanent = [INVALID_TOPIC, INVALID_PARTITIONS, POLICY_VIOLATION];
    error.code().is_some_and(|code| permanent.contains(&code))
}

fn outage(error: &AppendError) -> PublishError {
    PublishError::Outage(error.to_string())
}

/// A failure that another try would not mend.
pub(super) fn permanent(text: String) -> Failure {
    Failure {
        class: Class::Permanent,
        maybe_accepted: false,
        text,
    }
}
