//! From the enqueueing transaction to the applied effect, over real stores, with real kills.

mod child;
mod embedded;
mod flights;
mod kills;
mod log;
mod zombie;
