//! The log on a disk that tests own: what it does, and what it does when things go wrong.

mod basics;
mod compaction;
mod damage;
mod disk;
mod flush;
mod full_disk;
mod in_file;
mod looking;
mod power_loss;
mod producers;
mod record_bytes;
mod rig;
mod topics;
mod transaction_model;
mod transaction_power_loss;
mod transactions;
mod watching;
