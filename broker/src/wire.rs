//! The stream that a client is connected by.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A stream that can be waited for without a buffer, so that an idle connection needs none.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    /// Waits until there is something to read, or the other side has closed. It may return early, but not
    /// again and again while reading finds nothing.
    ///
    /// Cancellation: harmless.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until the other side has closed. It never does while there is something to read.
    ///
    /// Cancellation: harmless.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

impl Wire for TcpStream {
    async fn readable(&self) -> io::Result<()> {
        TcpStream::readable(self).await
    }

    async fn closed(&self) {
        if let Ok(1..) = self.peek(&mut [0]).await {
            std::future::pending().await
        }
    }
}

impl Wire for TlsStream<TcpStream> {
    async fn readable(&self) -> io::Result<()> {
        let (stream, tls) = self.get_ref();
        // Otherwise there is something that has been decrypted already, or there will be nothing.
        match tls.wants_read() {
            true => stream.readable().await,
            false => Ok(()),
        }
    }

    async fn closed(&self) {
        Wire::closed(self.get_ref().0).await;
    }
}
