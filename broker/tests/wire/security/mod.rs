//! Who clients are, and what they may do.

mod access;
mod login;
pub mod rig;
mod tls;
