//! The little system's business side, whichever database it runs on.

use std::sync::Arc;

use async_trait::async_trait;
use outbox_consumer::{ConsumerError, HandlerError};
use outbox_core::{InboxError, InvalidMessage, Message, Record, Source, TopicPattern};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::ledger::Entry;
use super::plan::PlannedOrder;
use crate::exit::{Exit, Problem};
use crate::store::OpenStore;

/// What things are called in the log.
#[derive(Clone, Debug)]
pub struct Names {
    /// Topic of all messages.
    pub topic: String,
    /// The consumer, and so its group.
    pub consumer: String,
    /// Group of whoever looks how far it is.
    pub onlooker: String,
}

impl Names {
    /// Of a log of the demo's own, or of one that others use too: then names that they do not have.
    pub fn new(shared: bool) -> Self {
        let prefix = match shared {
            true => format!("outbox-demo-{:08x}-", rand::random::<u32>()),
            false => String::new(),
        };
        Self {
            topic: format!("{prefix}orders.placed"),
            consumer: format!("{prefix}billing"),
            onlooker: format!("{prefix}onlooker"),
        }
    }

    /// The topic, as destinations and consumers name it.
    pub fn patterns(&self) -> Vec<TopicPattern> {
        vec![self.topic.parse().expect("a topic is a pattern")]
    }
}

/// An order service and its billing, with their tables.
#[async_trait]
pub trait Shop: Send + Sync {
    /// What its database is called.
    fn name(&self) -> &'static str;

    /// How many clients order at once.
    fn clients(&self) -> usize;

    /// Creates all tables, the outbox's too, and notes every order that will be tried.
    async fn prepare(&self, orders: &[PlannedOrder]) -> Result<(), Problem>;

    /// Tries one order: its row and its message commit together, or not at all.
    async fn place(&self, order: &PlannedOrder) -> Result<(), Problem>;

    /// The outbox's store, on connections that belong to the calling runtime.
    async fn store(&self) -> Result<OpenStore, Problem>;

    /// Runs the consumer, on connections that belong to the calling runtime.
    async fn bill(
        &self,
        source: Arc<dyn Source>,
        shutdown: CancellationToken,
    ) -> Result<(), Problem>;

    /// How many orders are committed, and how many effects are made.
    async fn counts(&self) -> Result<Counts, Problem>;

    /// Everything the tables hold.
    async fn books(&self) -> Result<Books, Problem>;

    /// Removes what was created outside of the demo's own folder.
    async fn clean_up(&self) -> Result<(), Problem>;
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Orders.
    pub committed: u64,
    /// Effects.
    pub applied: u64,
}

/// What the tables hold.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Orders.
    pub committed: Vec<Entry>,
    /// Transactions that left no order.
    pub rolled_back: u64,
    /// Effects.
    pub applied: Vec<Entry>,
    /// Sum of the customers' balances.
    pub balance_cents: i64,
}

/// The message's body.
#[derive(Debug, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// Id of the message: the ledger finds it again in the log.
    pub message_id: String,
    /// Who ordered.
    pub customer: i64,
    /// The customer's how-manieth order.
    pub number: i64,
    /// For how much.
    pub cents: i64,
}

impl OrderPlaced {
    /// The body of `order`, which got `number` in its transaction.
    pub fn new(order: &PlannedOrder, number: i64) -> Self {
        Self {
            message_id: order.message_id.to_string(),
            customer: order.customer,
            number,
            cents: order.cents,
        }
    }

    /// The message about it.
    ///
    /// # Errors
    /// Never in practice: the body is plain.
    pub fn message(&self, topic: &str, order: &PlannedOrder) -> Result<Message, InvalidMessage> {
        Ok(Message::json(topic, self)?
            .key(self.customer)
            .id(order.message_id))
    }

    /// A second message, that must vanish with its savepoint.
    pub fn coupon(&self, topic: &str) -> Result<Message, InvalidMessage> {
        let coupon = Self {
            message_id: "coupon".to_owned(),
            ..*self
        };
        Ok(Message::json(topic, &coupon)?.key(self.customer))
    }

    /// Reads it from a record.
    ///
    /// # Errors
    /// When the record is not one of this demo.
    pub fn read(record: &Record) -> Result<Self, serde_json::Error> {
        record.json()
    }
}

impl From<OrderPlaced> for Entry {
    fn from(order: OrderPlaced) -> Self {
        Self {
            message_id: order.message_id,
            customer: order.customer,
            number: order.number,
            cents: order.cents,
        }
    }
}

/// A database that did not do what the demo asked of it.
pub fn database_problem(doing: &'static str) -> impl Fn(sqlx::Error) -> Problem {
    move |error| {
        let exit = match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) => {
                Exit::Unreachable
            }
            _ => Exit::Failed,
        };
        Problem::new(exit, format!("{doing}: {error}"))
    }
}

/// A body that breaks a limit: a bug of the demo.
pub fn message_problem(error: InvalidMessage) -> Problem {
    Problem::new(Exit::Failed, format!("build the demo's message: {error}"))
}

/// The inbox has no tables.
pub fn inbox_problem(error: InboxError) -> Problem {
    Problem::new(Exit::Failed, format!("prepare the demo's inbox: {error}"))
}

/// The consumer ended early.
pub fn consumer_problem(error: ConsumerError) -> Problem {
    Problem::new(Exit::Failed, format!("run the demo's consumer: {error}"))
}

/// The order of a record, or what makes it a dead letter.
pub fn read_order(record: &Record) -> Result<OrderPlaced, HandlerError> {
    OrderPlaced::read(record).map_err(HandlerError::permanent)
}
