//! The reader against workers that a test plays: what is left out comes later, in order.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::Notify;

use super::{Link, Partition};
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::queue::{Item, QueueReceiver, Stall, queue, worker_of};
use crate::testing::{MemorySource, record};

const WORKERS: usize = 3;

/// A fetch brings a few records of this size, so that catching up takes many.
const PAYLOAD: usize = crate::limits::FETCH_BYTES / 3;

#[derive(Clone, Debug)]
enum Step {
    /// A record of this key is appended.
    Append(u8),
    /// The reader has a turn.
    Read,
    /// A worker takes up to so many records, and is done with them.
    Work { worker: usize, records: usize },
    /// A worker begins, or ends, to wait for a retry.
    Stall { worker: usize, on: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12).prop_map(Step::Append),
        4 => Just(Step::Read),
        3 => (0..WORKERS, 1usize..6).prop_map(|(worker, records)| Step::Work { worker, records }),
        2 => (0..WORKERS, any::<bool>()).prop_map(|(worker, on)| Step::Stall { worker, on }),
    ]
}

/// A reader with one partition, and the workers' ends of its queues.
struct Stage {
    source: MemorySource,
    payload: Bytes,
    link: Link,
    partition: Partition,
    queues: Vec<QueueReceiver>,
    stalls: Vec<Option<Stall>>,
    /// The worker of each record, by offset.
    due: Vec<usize>,
    /// The offsets that each worker got.
    got: Vec<Vec<i64>>,
}

impl Stage {
    fn new(queue_records: usize) -> Self {
        let room = Arc::new(Notify::new());
        let (senders, queues) = (0..WORKERS)
            .map(|_| queue(queue_records, room.clone()))
            .unzip();
        let source = MemorySource::new();
        let link = Link {
            consumer: "test".to_owned(),
            source: Arc::new(source.clone()),
            patterns: vec!["*".parse().expect("a pattern")],
            queues: senders,
            metrics: Arc::new(Metrics::new("test")),
            notices: Notices::new("test", Vec::new()).0,
        };
        Self {
            source,
            payload: Bytes::from(vec![0; PAYLOAD]),
            link,
            partition: Partition::new(record("orders", "", "").partition, 0, 0),
            queues,
            stalls: (0..WORKERS).map(|_| None).collect(),
            due: Vec::new(),
            got: vec![Vec::new(); WORKERS],
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append(key) => {
                let record = record("orders", &format!("k{key}"), self.payload.clone());
                self.due.push(worker_of(&record, WORKERS));
                self.source.append(record);
            }
            Step::Read => {
                if !self.due.is_empty() {
                    self.link.read(&mut self.partition).await;
                }
            }
            Step::Work { worker, records } => {
                self.work(worker, records).await;
            }
            Step::Stall { worker, on } => {
                self.stalls[worker] = on.then(|| self.queues[worker].stall());
            }
        }
    }

    async fn work(&mut self, worker: usize, records: usize) -> usize {
        let items: Vec<Item> = tokio::select! {
            biased;
            items = self.queues[worker].next(records) => items,
            () = async {} => Vec::new(),
        };
        for item in &items {
            self.got[worker].push(item.record.offset);
            item.progress.lock().finish(item.record.offset);
        }
        items.len()
    }

    /// Nothing below the committable offset may be missing at its worker.
    fn check_next(&self) {
        let next = self.partition.progress.lock().next();
        for (offset, &worker) in (0..next).zip(&self.due) {
            assert!(
                self.got[worker].contains(&offset),
                "{next} would skip {offset}"
            );
        }
    }

    /// Lets everybody go on until nothing moves.
    async fn settle(&mut self) {
        self.stalls.iter_mut().for_each(|stall| *stall = None);
        loop {
            let mut moved = self.link.read(&mut self.partition).await;
            for worker in 0..WORKERS {
                moved |= self.work(worker, usize::MAX).await > 0;
            }
            if !moved {
                return;
            }
        }
    }
}

proptest! {
    #[test]
    fn each_worker_gets_each_of_its_records_once_and_in_order(
        queue_records in 1usize..6, steps in prop::collection::vec(step(), 0..150)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            let mut stage = Stage::new(queue_records);
            for step in steps {
                stage.take(step).await;
                stage.check_next();
            }
            if !stage.due.is_empty() {
                stage.settle().await;
            }
            stage.check_next();
            for worker in 0..WORKERS {
                let due = (0i64..).zip(&stage.due).filter(|(_, due)| **due == worker);
                let due: Vec<i64> = due.map(|(offset, _)| offset).collect();
                assert_eq!(stage.got[worker], due, "worker {worker}");
            }
            assert_eq!(stage.partition.progress.lock().next(), stage.due.len() as i64);
        });
    }
}
