//! The relay as a whole, on a store and a broker in memory and on paused time.

mod alerts;
mod delivery;
mod http;
mod leases;
mod markers;
mod random;
mod support;
mod telemetry;
