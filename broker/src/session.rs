//! What is known of one connection's client.

use std::net::SocketAddr;

use crate::security::Principal;

/// One connection's client.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where it connected from.
    pub peer: SocketAddr,
    /// Who it is.
    pub principal: Principal,
}
