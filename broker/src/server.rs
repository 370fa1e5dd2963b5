//! The listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::limits::{ACCEPT_PAUSE, KEEPALIVE};
use crate::security::Principal;
use crate::session::Session;
use crate::shared::Shared;

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
    let session = Session {
        peer,
        principal: Principal::Anonymous,
    };
    tracing::debug!(%peer, "connected");
    match Connection::new(shared, session, stream).run().await {
        Ok(()) => tracing::debug!(%peer, "disconnected"),
        Err(error) if error.is_usual() => tracing::debug!(%peer, %error, "disconnected"),
        Err(error) => tracing::warn!(%peer, %error, "closed a connection"),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
