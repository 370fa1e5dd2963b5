//! Duplicate-proof publish: a Produce request with a publication beside the records.

use std::time::Duration;

use bytes::Bytes;
use outbox_log_broker::{Publication, Slice};

use super::Client;
use super::topics::topic_name;
use crate::client::ClientError;
use crate::codec::messages::ProduceRequest;
use crate::codec::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::codec::{self, PUBLICATION, PUBLICATION_FROM, Published};

/// All replicas: with this broker, the disk.
const ACKS_ALL: i16 = -1;
/// The leader alone: a publication is refused with it, for it is stored durably or not at all.
const ACKS_REFUSED: i16 = 1;

/// What became of a publish that the broker took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishAnswer {
    /// Durable; offset of the first record of each slice.
    Stored {
        /// In the order of the append's slices.
        first_offsets: Vec<i64>,
    },
    /// Nothing was stored, and these records, by their place among all of the append, need not be:
    /// they are durable already.
    Duplicates {
        /// Places, counted from 0.
        indexes: Vec<usize>,
    },
}

/// Why a broker did not take a publish. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishRefusal {
    /// It could not be asked, or did not answer: whether it is stored is unknown.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A newer epoch has published.
    #[error("publish: epoch {epoch} is fenced, epoch {newer} has published")]
    Fenced {
        /// That of the append.
        epoch: i64,
        /// The newest one.
        newer: i64,
    },
    /// The broker does not take it now.
    #[error("publish to the broker at {address}: {problem}")]
    Unavailable {
        /// The broker.
        address: String,
        /// What it said.
        problem: String,
    },
    /// The broker will never take it.
    #[error("publish to the broker at {address}: {problem}")]
    Refused {
        /// The broker.
        address: String,
        /// What it said.
        problem: String,
    },
    /// It is some other broker, which would store duplicates: nothing must be published there in
    /// this way.
    #[error(
        "publish to the broker at {address}: it is not the bundled log broker (its answer does not \
         tell what became of the publication), and would store duplicates. Cure: name an `outbox \
         broker` in the destination's log:// address"
    )]
    NotOurs {
        /// The broker.
        address: String,
    },
}

impl Client {
    /// Whether the bundled log broker answers there, which drops duplicates, and not some other
    /// broker of the same protocol. It is asked to publish in a way that it must refuse: nothing
    /// is written, and no epoch is fenced.
    ///
    /// # Errors
    /// [`PublishRefusal::NotOurs`] for another broker; [`PublishRefusal::Client`] when it cannot be
    /// asked.
    pub async fn check_publishes(&self) -> Result<(), PublishRefusal> {
        let nothing = codec::write_publication(&Publication::default());
        let request = ProduceRequest::default()
            .with_acks(ACKS_REFUSED)
            .with_timeout_ms(self.timeout_ms())
            .with_unknown_tagged_fields([(PUBLICATION, nothing)].into());
        let answer = self
            .call(PUBLICATION_FROM, &request, Duration::ZERO)
            .await?;
        match answer.unknown_tagged_fields.contains_key(&PUBLICATION) {
            true => Ok(()),
            false => Err(self.not_ours()),
        }
    }

    fn not_ours(&self) -> PublishRefusal {
        PublishRefusal::NotOurs {
            address: self.address().to_owned(),
        }
    }

    /// Appends batches with their publication, all or none, as
    /// [`Log::append`](outbox_log_broker::Log::append) does. The slices must be sorted by topic and
    /// partition. May be repeated: what was stored the first time is answered as duplicates.
    ///
    /// # Errors
    /// [`PublishRefusal`].
    pub async fn publish(
        &self,
        batches: Bytes,
        slices: &[Slice],
        publication: &Publication,
    ) -> Result<PublishAnswer, PublishRefusal> {
        let request = ProduceRequest::default()
            .with_acks(ACKS_ALL)
            .with_timeout_ms(self.timeout_ms())
            .with_topic_data(topics(batches, slices))
            .with_unknown_tagged_fields(
                [(PUBLICATION, codec::write_publication(publication))].into(),
            );
        let answer = self
            .call(PUBLICATION_FROM, &request, Duration::ZERO)
            .await?;
        let address = || self.address().to_owned();
        let Some(outcome) = answer.unknown_tagged_fields.get(&PUBLICATION) else {
            return Err(self.not_ours());
        };
        let outcome = codec::read_published(outcome.clone());
        match outcome.map_err(|e| self.confused(&e))? {
            Published::Stored => {
                let partitions = answer.responses.iter().flat_map(|t| &t.partition_responses);
                let first_offsets = partitions.map(|p| p.base_offset).collect();
                Ok(PublishAnswer::Stored { first_offsets })
            }
            Published::Duplicates(indexes) => Ok(PublishAnswer::Duplicates { indexes }),
            Published::Fenced { epoch, newer } => Err(PublishRefusal::Fenced { epoch, newer }),
            Published::Refused(problem) => Err(PublishRefusal::Refused {
                address: address(),
                problem,
            }),
            Published::Unavailable(problem) => Err(PublishRefusal::Unavailable {
                address: address(),
                problem,
            }),
        }
    }
}

/// One entry for each topic, and in it one for each slice.
fn topics(mut batches: Bytes, slices: &[Slice]) -> Vec<TopicProduceData> {
    let mut topics = Vec::new();
    for same_topic in slices.chunk_by(|a, b| a.topic == b.topic) {
        let mut partitions = Vec::with_capacity(same_topic.len());
        for slice in same_topic {
            let records = batches.split_to(slice.bytes.min(batches.len()));
            let partition = PartitionProduceData::default()
                .with_index(slice.partition as i32)
                .with_records(Some(records));
            partitions.push(partition);
        }
        topics.push(
            TopicProduceData::default()
                .with_name(topic_name(&same_topic[0].topic))
                .with_partition_data(partitions),
        );
    }
    topics
}
