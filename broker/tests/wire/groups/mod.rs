//! Consumer groups, as clients see them.

mod admin;
mod membership;
mod offsets;
mod rig;
