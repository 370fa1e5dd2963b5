//! One client.
//!
//! Everything of a connection happens in one task, request after request, but for the appends of
//! Produce requests: those overlap, in the order of the requests. Any other request runs when the
//! answers before it have been sent, for clients count on its seeing what they did before.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::api::{self, Call, Opened};
use crate::codec::{Frame, FrameReader, Front, Reply};
use crate::error::ConnectionError;
use crate::limits::{RECEIVE_TIME_MAX, SEND_STALL_MAX};
use crate::pipeline::Pipeline;
use crate::security;
use crate::session::Session;
use crate::shared::Shared;
use crate::wire::Wire;

/// One client's connection.
pub(crate) struct Connection<W> {
    shared: Arc<Shared>,
    session: Arc<Session>,
    wire: W,
    reader: FrameReader,
    pipeline: Pipeline,
    /// Answers that have not been sent; used again and again.
    out: BytesMut,
}

/// Why the waiting ended.
enum Event {
    /// The oldest request in the pipeline is done.
    Done,
    /// More was received.
    Received,
    /// The client has closed, has been silent for too long, or the broker stops.
    End,
}

impl<W: Wire> Connection<W> {
    pub fn new(shared: Arc<Shared>, session: Arc<Session>, wire: W) -> Self {
        let limit = request_bytes_max(&shared, &session);
        let reader = FrameReader::new(limit, shared.receive_room.clone());
        Self {
            shared,
            session,
            wire,
            reader,
            pipeline: Pipeline::default(),
            out: BytesMut::new(),
        }
    }

    /// Serves the client until it goes, the broker stops, or the client misbehaves. What was
    /// started is finished and answered in the first two cases.
    ///
    /// # Errors
    /// Why the connection is closed by this side.
    pub async fn run(mut self) -> Result<(), ConnectionError> {
        loop {
            while self.pipeline.has_room()
                && let Some(frame) = self.reader.next()?
            {
                self.take(frame).await?;
                if self.session.has_failed() {
                    return Ok(());
                }
            }
            match self.wait().await? {
                Event::Done => self.answer().await?,
                Event::Received => {}
                Event::End => return self.drain().await,
            }
        }
    }

    async fn wait(&mut self) -> Result<Event, ConnectionError> {
        let has_room = self.pipeline.has_room();
        let (shared, pipeline) = (&*self.shared, &mut self.pipeline);
        let idle = pipeline.is_empty().then_some(shared.options.idle_time);
        // Dropping any of these loses nothing: the pipeline keeps what is known, and received
        // bytes stay in the reader.
        tokio::select! {
            biased;
            () = pipeline.oldest_done(shared), if !pipeline.is_empty() => Ok(Event::Done),
            () = shared.stop.cancelled() => Ok(Event::End),
            event = receive(&mut self.reader, &mut self.wire, idle), if has_room => event,
        }
    }

    /// Starts a Produce request, or runs another one to its end.
    async fn take(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        let mut permit = frame.permit;
        match api::open(frame.bytes, &self.session)? {
            Opened::Produce(head, body) => {
                let call = Call::new(&self.shared, &self.session, &head);
                let started = api::produce::start(&call, body).await?;
                drop(permit);
                self.pipeline.push(started);
                Ok(())
            }
            Opened::Other(api, head, body) => {
                self.drain().await?;
                let call = Call::new(&self.shared, &self.session, &head);
                if api.ends_with_its_client() {
                    // It keeps nothing of the request while it waits for others, which may take
                    // minutes.
                    permit = None;
                }
                // Boxed, or every idle connection would be as large as the largest handler.
                let reply = Box::pin(api::answer(&call, api, body));
                let reply = tokio::select! {
                    biased;
                    reply = reply => reply?,
                    // A member that is gone while it waits for its group may be waited for itself.
                    () = self.wire.closed(), if api.ends_with_its_client() => return Ok(()),
                    // Whoever waits for records or a group learns of the stop by the close.
                    () = self.shared.stop.cancelled() => return Ok(()),
                };
                drop(permit);
                // The client may just have logged in.
                let limit = request_bytes_max(&self.shared, &self.session);
                self.reader.set_request_bytes_max(limit);
                send_reply(&mut self.wire, reply).await
            }
            Opened::Refused(reply) => {
                self.drain().await?;
                send_reply(&mut self.wire, reply).await
            }
        }
    }

    /// Sends the answers that are there.
    async fn answer(&mut self) -> Result<(), ConnectionError> {
        let answered = self.pipeline.answer_done(&self.shared, &mut self.out);
        if !self.out.is_empty() {
            let answers = Reply::from(self.out.split().freeze());
            send_reply(&mut self.wire, answers).await?;
        }
        answered
    }

    /// Waits for everything that was started, and sends the answers.
    async fn drain(&mut self) -> Result<(), ConnectionError> {
        while !self.pipeline.is_empty() {
            self.pipeline.oldest_done(&self.shared).await;
            self.answer().await?;
        }
        Ok(())
    }
}

/// Largest request that a client may send now.
fn request_bytes_max(shared: &Shared, session: &Session) -> usize {
    match session.principal() {
        Some(_) => shared.options.request_bytes_max,
        None => security::limits::REQUEST_BYTES_MAX,
    }
}

/// Receives more of a request. `idle` is how long a client may be silent between two of them;
/// `None` while it waits for an answer.
async fn receive(
    reader: &mut FrameReader,
    wire: &mut impl Wire,
    idle: Option<std::time::Duration>,
) -> Result<Event, ConnectionError> {
    if reader.is_empty() {
        let first = first_bytes(reader, wire);
        return match idle {
            None => received(first.await?),
            Some(idle) => match timeout(idle, first).await {
                Ok(count) => received(count?),
                Err(_) => Ok(Event::End),
            },
        };
    }
    match timeout(RECEIVE_TIME_MAX, reader.receive(wire)).await {
        Ok(count) => received(count?),
        Err(_) => Err(ConnectionError::ReceiveStalled(RECEIVE_TIME_MAX)),
    }
}

/// Waits without a buffer until there is something to be received.
async fn first_bytes(reader: &mut FrameReader, wire: &mut impl Wire) -> io::Result<usize> {
    loop {
        wire.readable().await?;
        if let Some(count) = reader.receive(wire).now_or_never() {
            return count;
        }
        // It was not readable after all.
        reader.release();
    }
}

fn received(count: usize) -> Result<Event, ConnectionError> {
    match count {
        0 => Ok(Event::End),
        _ => Ok(Event::Received),
    }
}

/// Sends all of it. A client that takes nothing for too long is given up.
async fn send_reply(wire: &mut impl Wire, mut reply: Reply) -> Result<(), ConnectionError> {
    while let Some(front) = reply.front() {
        let sent = timeout(SEND_STALL_MAX, async {
            match front {
                Front::Last(mut run) => wire.write_buf(&mut run).await,
                Front::Ahead(piece) => wire.send_ahead(piece).await,
                Front::File(range) => wire.send_file(range).await,
            }
        });
        match sent.await {
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(ConnectionError::SendStalled(SEND_STALL_MAX)),
        }
    }
    Ok(())
}
