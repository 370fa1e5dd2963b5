//! The stream that a client is connected by.

use std::io;

#[cfg(target_os = "linux")]
use bytes::Buf;
use bytes::Bytes;
use outbox_log_broker::FileRange;
#[cfg(target_os = "linux")]
use rustix::fs::sendfile;
#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

#[cfg(target_os = "linux")]
use crate::limits::SEND_FILE_BYTES;
use crate::limits::SEND_READ_BYTES;

/// A stream that can be waited for without a buffer, so that an idle connection needs none.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + Sized {
    /// Waits until there is something to read, or the other side has closed. It may return early, but not
    /// again and again while reading finds nothing.
    ///
    /// Cancellation: harmless.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until the other side has closed. It never does while there is something to read.
    ///
    /// Cancellation: harmless.
    fn closed(&self) -> impl Future<Output = ()> + Send;

    /// Sends from the front of `piece`, which a part of a file follows at once, and answers how many
    /// bytes.
    fn send_ahead(&mut self, piece: &mut Bytes) -> impl Future<Output = io::Result<usize>> + Send {
        async { self.write_buf(piece).await }
    }

    /// Sends from the front of a part of a file, and answers how many bytes. Blocks on the disk when
    /// they are not in the page cache.
    fn send_file(
        &mut self,
        range: &mut FileRange,
    ) -> impl Future<Output = io::Result<usize>> + Send {
        async {
            let mut read = range.read(SEND_READ_BYTES)?;
            // What the stream takes of them now; the rest is read again.
            let sent = self.write_buf(&mut read).await?;
            range.advance(sent);
            Ok(sent)
        }
    }
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

    /// Without a packet of its own.
    #[cfg(target_os = "linux")]
    async fn send_ahead(&mut self, piece: &mut Bytes) -> io::Result<usize> {
        use rustix::net::{SendFlags, send};
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let sending = || Ok(send(&*self, piece, flags)?);
        let sent = self.async_io(Interest::WRITABLE, sending).await?;
        piece.advance(sent);
        Ok(sent)
    }

    /// From the page cache, without being copied by this process.
    #[cfg(target_os = "linux")]
    async fn send_file(&mut self, range: &mut FileRange) -> io::Result<usize> {
        let Some(file) = range.descriptor() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let most = range.len().min(SEND_FILE_BYTES);
        let mut position = range.position();
        let sending = || Ok(sendfile(&*self, file, Some(&mut position), most)?);
        let sent = self.async_io(Interest::WRITABLE, sending).await?;
        if sent == 0 {
            // It is shorter than it was.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        range.advance(sent);
        Ok(sent)
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
