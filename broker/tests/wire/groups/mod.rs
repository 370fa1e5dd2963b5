//! Consumer groups, as clients see them.

mod admin;
mod membership;
mod offsets;
pub mod rig;
