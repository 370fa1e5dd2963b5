//! Keeps this process a member of its group.
//!
//! The partitions of a member that goes are read by others at once, from the committed offsets on.
//! What the old one still applies then is applied twice by nobody: both use one inbox, and the
//! second to accept a message waits for the first.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outbox_broker::client::{
    Assignment, Client, ClientError, ClientOptions, JoinOptions, Member, TopicPartitions,
};
use outbox_core::{TopicPartition, TopicPattern};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A member that is silent for so long is taken for gone, and its partitions go to others.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a member says that it is there: three may be lost.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Longest time that a rebalance waits for one member.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often topics and their partitions are looked up.
const TOPICS_INTERVAL: Duration = Duration::from_secs(5);
/// First pause after a failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a goodbye may take.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// What is known of this process' part in the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Who it is, while it is a member.
    pub member: Option<Member>,
    /// How many assignments there have been.
    pub assignments: u64,
    /// Its partitions by the newest assignment.
    pub partitions: BTreeSet<TopicPartition>,
    /// Why there is no newer one.
    pub problem: Option<String>,
}

/// The handle of the task. Dropping it leaves the group.
pub(super) struct Membership {
    standing: watch::Receiver<Standing>,
    patterns: Arc<Mutex<Vec<TopicPattern>>>,
    stop: CancellationToken,
    left: watch::Receiver<bool>,
}

impl Membership {
    /// Joins `group` for the topics that `patterns` cover. To be called in a runtime of tokio.
    pub fn start(options: ClientOptions, group: String, patterns: Vec<TopicPattern>) -> Self {
        let (sender, standing) = watch::channel(Standing::default());
        let (leaving, left) = watch::channel(false);
        let stop = CancellationToken::new();
        let patterns = Arc::new(Mutex::new(patterns));
        let task = Task {
            client: Client::new(options),
            group,
            patterns: patterns.clone(),
            standing: sender,
        };
        let token = stop.clone();
        tokio::spawn(async move {
            task.run(&token).await;
            // Whoever waits for it may have given up.
            let _ = leaving.send(true);
        });
        Self {
            standing,
            patterns,
            stop,
            left,
        }
    }

    /// Other topics from the next look on.
    pub fn subscribe(&self, patterns: &[TopicPattern]) {
        let mut now = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != patterns {
            *now = patterns.to_vec();
        }
    }

    /// What is known, once there has been an assignment or a failure.
    pub async fn first(&self) -> Standing {
        let mut standing = self.standing.clone();
        let known = standing.wait_for(|s| s.member.is_some() || s.problem.is_some());
        known.await.map(|s| s.clone()).unwrap_or_default()
    }

    /// Tells of every change from now on.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Leaves the group, and waits until the broker knows.
    pub async fn leave(&self) {
        self.stop.cancel();
        let mut left = self.left.clone();
        // It fails when the task is gone, which is just as well.
        let _ = left.wait_for(|&left| left).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Task {
    client: Client,
    group: String,
    patterns: Arc<Mutex<Vec<TopicPattern>>>,
    standing: watch::Sender<Standing>,
}

/// Why a generation ended for this member.
enum Ended {
    /// The group rebalances, or topics have come or gone: to join again.
    Rebalance,
    /// The group has forgotten this member.
    Forgotten,
}

impl Task {
    async fn run(self, stop: &CancellationToken) {
        // What is dropped here is a request under way; the goodbye goes over a new connection.
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.stay() => {}
        }
        let member = self.standing.borrow().member.clone();
        if let Some(member) = member {
            match timeout(LEAVE_MAX, self.client.leave(&member)).await {
                Ok(Ok(())) => tracing::debug!(group = self.group, "left the group"),
                Ok(Err(error)) => tracing::debug!(group = self.group, %error, "left silently"),
                Err(_) => tracing::debug!(group = self.group, "left silently"),
            }
        }
    }

    async fn stay(&self) {
        let mut pause = PAUSE_MIN;
        let mut known: Option<String> = None;
        loop {
            match self.generation(&mut known).await {
                Ok(Ended::Rebalance) => pause = PAUSE_MIN,
                Ok(Ended::Forgotten) => known = None,
                Err(error) => {
                    if error.is_forgotten() {
                        known = None;
                    }
                    // A rebalance that another one overtakes is nothing to speak of.
                    if !error.is_rebalance() {
                        self.failed(&error);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn failed(&self, error: &ClientError) {
        tracing::debug!(group = self.group, %error, "the group cannot be joined now");
        self.standing
            .send_modify(|s| s.problem = Some(error.to_string()));
    }

    /// One generation, from joining to the next rebalance.
    async fn generation(&self, known: &mut Option<String>) -> Result<Ended, ClientError> {
        let topics = self.wanted().await?;
        let options = JoinOptions {
            group: self.group.clone(),
            topics: topics.keys().cloned().collect(),
            session_timeout: SESSION_TIMEOUT,
            rebalance_timeout: REBALANCE_TIMEOUT,
        };
        let assignment = self.client.join(&options, known.as_deref()).await?;
        *known = Some(assignment.member.id.clone());
        let member = assignment.member.clone();
        self.assigned(assignment);
        let mut looked = Instant::now();
        loop {
            sleep(HEARTBEAT).await;
            match self.client.heartbeat(&member).await {
                Err(error) if error.is_forgotten() => return Ok(Ended::Forgotten),
                Err(error) if error.is_rebalance() => return Ok(Ended::Rebalance),
                other => other?,
            }
            if looked.elapsed() >= TOPICS_INTERVAL {
                looked = Instant::now();
                if self.wanted().await? != topics {
                    return Ok(Ended::Rebalance);
                }
            }
        }
    }

    /// The topics that the patterns cover, with their partitions.
    async fn wanted(&self) -> Result<TopicPartitions, ClientError> {
        let mut topics = self.client.topics().await?;
        let patterns = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|topic, _| patterns.iter().any(|p| p.matches(topic)));
        Ok(topics)
    }

    fn assigned(&self, assignment: Assignment) {
        tracing::info!(
            group = self.group,
            generation = assignment.member.generation,
            partitions = assignment.partitions.len(),
            "partitions were assigned"
        );
        let partitions = assignment.partitions.into_iter();
        self.standing.send_modify(|standing| {
            *standing = Standing {
                member: Some(assignment.member),
                assignments: standing.assignments + 1,
                partitions: partitions
                    .map(|(topic, partition)| TopicPartition {
                        topic,
                        partition: partition as i32,
                    })
                    .collect(),
                problem: None,
            };
        });
    }
}
