//! The listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::error::ConnectionError;
use crate::limits::{ACCEPT_PAUSE, KEEPALIVE};
use crate::security::limits::LOGIN_TIME_MAX;
use crate::session::Session;
use crate::shared::Shared;
use crate::wire::Wire;

/// Accepts connections until the broker stops.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, connections: TaskTracker) {
    let room = Arc::new(Semaphore::new(shared.options.connections_max));
    loop {
        // Dropping `accept` loses no connection: it stays in the listener's queue.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => match room.clone().try_acquire_owned() {
                Ok(permit) => {
                    connections.spawn(serve(shared.clone(), stream, peer, permit));
                }
                Err(_) => {
                    shared.meters.refused.increment(1);
                    let limit = shared.options.connections_max;
                    tracing::warn!(%peer, limit, "closed a connection: there are too many");
                }
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
}

/// An open connection, counted until it is dropped.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.meters.connections.decrement(1.0);
    }
}

async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%peer, %error, "a connection was gone at once");
        return;
    }
    tracing::debug!(%peer, "connected");
    shared.meters.accepted.increment(1);
    shared.meters.connections.increment(1.0);
    let counted = Counted(shared.clone());
    let served = match shared.security.tls.clone() {
        None => converse(shared, stream, peer, false).await,
        Some(tls) => match timeout(LOGIN_TIME_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => converse(shared, stream, peer, true).await,
            Ok(Err(error)) => Err(ConnectionError::Tls(error)),
            Err(_) => Err(ConnectionError::LoginStalled(LOGIN_TIME_MAX)),
        },
    };
    match served {
        Ok(()) => tracing::debug!(%peer, "disconnected"),
        Err(error) if error.is_usual() => tracing::debug!(%peer, %error, "disconnected"),
        Err(error) => {
            counted.0.meters.misbehaved.increment(1);
            tracing::warn!(%peer, %error, "closed a connection");
        }
    }
}

async fn converse(
    shared: Arc<Shared>,
    wire: impl Wire,
    peer: SocketAddr,
    encrypted: bool,
) -> Result<(), ConnectionError> {
    let session = Arc::new(Session::new(peer, encrypted, shared.security.newcomer()));
    let connection = Connection::new(shared, session.clone(), wire);
    // Dropping a connection that has not logged in abandons nothing but the log-in.
    tokio::select! {
        ended = connection.run() => ended,
        () = overdue(&session) => Err(ConnectionError::LoginStalled(LOGIN_TIME_MAX)),
    }
}

/// Returns when a client should have logged in and has not.
async fn overdue(session: &Session) {
    if session.principal().is_none() {
        tokio::time::sleep(LOGIN_TIME_MAX).await;
    }
    if session.principal().is_some() {
        std::future::pending().await
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
