//! Sends what is pending: one clear loop for each destination.
//!
//! A tour, in reading order:
//!
//! - [`Relay`] beats, watches the other relays, and leads its share of the destinations
//!   (`relay`, `board`, `balance`, `lead`, `lease`).
//! - `engine` is the loop of one destination: read a page, publish it, settle.
//! - `keys` knows which keys are blocked, and nothing else.
//! - `alerts` tells operators; [`LogSink`], [`WebhookSink`] and [`CommandSink`] are where to.
//! - `http` serves `/livez`, `/readyz` and `/metrics`; [`METRICS`] lists what is exported.
//! - `maintenance` keeps the store's house; [`Schedule`] is a cron expression as usually written.
//!
//! The relay knows neither which store nor which broker it drives: both are ports of
//! `outbox-core`. What it promises, and what tests hold it to, is in `docs/delivery.md`.

mod alerts;
mod balance;
mod board;
mod clock;
mod engine;
mod error;
mod health;
mod http;
mod keys;
mod lead;
mod lease;
pub mod limits;
mod maintenance;
mod options;
mod relay;
mod schedule;
mod telemetry;

pub use alerts::{
    CommandSink, InvalidWebhook, LogSink, WebhookFormat, WebhookSink, ensure_crypto_provider,
};
pub use clock::BootClock;
pub use error::{HttpError, RelayError};
pub use http::{HttpServer, Monitored, install_recorder};
pub use options::{AlertOptions, Backoff, HttpOptions, MaintenanceOptions, RelayOptions};
pub use relay::Relay;
pub use schedule::{InvalidSchedule, Schedule};
pub use telemetry::{METRICS, Metric};
