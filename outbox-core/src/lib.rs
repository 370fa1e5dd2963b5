//! Types and ports of the transactional outbox: no SQL, no network, no runtime.
//!
//! A tour, in reading order:
//!
//! - [`Message`]: what a service enqueues, validated against [`limits`].
//! - [`TraceContext`]: the enqueuing span, for the message's headers.
//! - [`TopicPattern`], [`Destination`], [`RetryPolicy`]: where messages go and how hard we try.
//! - [`Pending`], [`Page`], [`Settlement`]: one turn of the relay's loop.
//! - [`Store`] and [`Session`]: the contract of a store, as the relay sees it.
//! - [`Admin`]: the contract of a store, as the operator sees it.
//! - [`Broker`]: where a batch is published, with one [`Outcome`] for each message.
//! - [`Source`] and [`Inbox`]: what the consumer reads, and how it applies once.
//! - [`AlertSink`] and [`Clock`]: the outside world.

pub mod limits;

mod admin;
mod alert;
mod broker;
mod clock;
mod consume;
mod delivery;
mod destination;
mod error;
mod message;
mod retry;
mod store;
mod topic;
mod trace;

pub use admin::*;
pub use alert::{Alert, AlertKind, AlertSink, AlertState};
pub use broker::{Batch, Broker, Capabilities, Fence, Outcome, PublishError, Receipt};
pub use clock::{Clock, SystemClock};
pub use consume::{
    DeadLetter, DeadLetterContent, DeadLetterFilter, Inbox, InboxError, Record, Source,
    SourceError, TopicPartition,
};
pub use delivery::{DeliveryState, Exception, KeyRef, Pending, Seq};
pub use destination::{Destination, DestinationName, OnDead, Order, Start};
pub use error::{Class, Failure, StoreError};
pub use message::{Headers, InvalidMessage, Message};
pub use retry::RetryPolicy;
pub use store::*;
pub use topic::{InvalidPattern, TopicPattern};
pub use trace::TraceContext;
