//! Who clients are, and what they may do.

mod access;
mod login;
mod rig;
mod tls;
