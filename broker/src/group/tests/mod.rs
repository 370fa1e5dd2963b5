//! The coordinator's behaviour, event by event, and a model that plays at random.

mod access;
mod model;
mod rebalance;
mod rig;
mod statics;
mod time;
