//! A connection to another server, for any executor and any thread.

use std::future::poll_fn;
use std::sync::Arc;

use hioload_protocol::ws::CloseCode;

use super::error::{Broken, ConnectError, SendError};
use super::payload::Payload;
use super::pipe::Pipe;
use super::presence::{Stage, wait};
use crate::shard::Closed;

/// An open connection to a server. It is `Send`, and used from any executor, from a plain thread
/// with [`block_on`](super::block_on), or in a future on a shard.
///
/// The input and output run on a shard (see [`Connect::open`](super::Connect::open)), which pings,
/// answers pings and keeps the deadlines of its configuration whether or not anybody waits here.
/// Dropping it closes the connection with 1001, after what was accepted by [`send`](Self::send).
///
/// # Backpressure
/// [`send`](Self::send) waits while the outbox is above `websocket.outbox_high_bytes`. What
/// arrives is kept up to [`Connect::inbox`](super::Connect::inbox); then nothing more is read from
/// the socket until [`next`](Self::next) has taken half of it, and the server is slowed down by
/// TCP. The clocks that end a connection for silence stand still in that time. Who sends much
/// without taking what comes back may so make both sides wait for each other, until
/// `websocket.progress_timeout_ms` ends it: [`split`](Self::split) it and do both.
///
/// # Reconnect
/// With [`Connect::reconnect`](super::Connect::reconnect) a lost connection is opened again. A
/// message is sent at most once: what was accepted for a connection and had not left when that was
/// lost is dropped, never sent on the next one. [`lost`](Self::lost) counts those of them that had
/// not reached the outbox; whether what had reached the kernel arrived cannot be known. In between,
/// [`send`](Self::send) waits for the next connection. [`next`](Self::next) goes on with the
/// messages of the next connection; [`next_event`](Self::next_event) shows where it begins.
///
/// # Examples
/// ```no_run
/// use hioload::CloseCode;
/// use hioload::ws::{self, Connect};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// ws::block_on(async {
///     let mut client = Connect::to("ws://127.0.0.1:9001/ws").open().await?;
///     client.send("hello").await?;
///     let answer = client.next().await.ok_or("it closed")??;
///     println!("{:?}", answer.text());
///     client.close(CloseCode::NORMAL, "").await;
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    receiver: Receiver,
    sender: Sender,
}

/// The half of a [`Client`] that sends; clones send on the same connection. The connection is
/// closed when all of them and the [`Receiver`] are dropped.
#[derive(Clone, Debug)]
pub struct Sender {
    owner: Arc<Owner>,
}

/// The half of a [`Client`] that receives. Dropping it lets the connection live for its
/// [`Sender`]s: what arrives is then thrown away.
#[derive(Debug)]
pub struct Receiver {
    owner: Arc<Owner>,
    /// The connection that the last event came from.
    generation: u32,
}

/// Something that a [`Client`] received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(Payload),
    /// The connection was lost and opened again. What is said once on each connection must be said
    /// again.
    Reconnected {
        /// Which connection it is: the first one is 1.
        generation: u32,
    },
}

/// Closes the connection when the last handle is gone.
#[derive(Debug)]
struct Owner(Arc<Pipe>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close(CloseCode::GOING_AWAY, "");
    }
}

impl Client {
    pub(super) fn new(pipe: Arc<Pipe>) -> Self {
        let owner = Arc::new(Owner(pipe));
        let receiver = Receiver { owner: Arc::clone(&owner), generation: 1 };
        Self { receiver, sender: Sender { owner } }
    }

    /// Waits until the connection is open for the first time.
    pub(super) async fn opened(&self) -> Result<(), ConnectError> {
        let pipe = &*self.sender.owner.0;
        wait(pipe, Pipe::forget_watcher, |poller| pipe.lock().presence.poll_opened(poller)).await
    }

    /// Sends a message. See [`Sender::send`].
    ///
    /// # Errors
    /// The connection is closed, or no outbox can take the message.
    pub async fn send(&self, message: impl Into<Payload>) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// The next message. See [`Receiver::next`].
    pub async fn next(&mut self) -> Option<Result<Payload, Broken>> {
        self.receiver.next().await
    }

    /// The next message or reconnect. See [`Receiver::next_event`].
    pub async fn next_event(&mut self) -> Option<Result<Event, Broken>> {
        self.receiver.next_event().await
    }

    /// Sends a ping. See [`Sender::ping`].
    pub fn ping(&self, payload: &[u8]) {
        self.sender.ping(payload);
    }

    /// Closes the connection and waits for its end. See [`Sender::close`].
    pub async fn close(&self, code: CloseCode, reason: &str) -> Closed {
        self.sender.close(code, reason).await
    }

    /// Why the connection ended; `None` while it is open or may be opened again.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        self.sender.closed()
    }

    /// The subprotocol that the server chose for the current connection.
    #[must_use]
    pub fn subprotocol(&self) -> Option<String> {
        self.sender.subprotocol()
    }

    /// Which connection the last message came from. See [`Receiver::generation`].
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.receiver.generation()
    }

    /// How many messages were lost with their connections. See [`Sender::lost`].
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sender.lost()
    }

    /// Two halves, so that one task sends while another one receives.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: hioload::ws::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, mut receiver) = client.split();
    /// let other = sender.clone(); // for another task or thread
    /// other.send("from there").await?;
    /// while let Some(message) = receiver.next().await {
    ///     println!("{} bytes", message?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Sender {
    /// Sends a message: a text (`&str`, `String`), bytes (`Vec<u8>`, `Bytes`), or a [`Payload`].
    ///
    /// Returns when the message is accepted; waits for that while the outbox is above its high
    /// mark, or while the connection is lost and being opened again. Messages leave in the order in
    /// which they were accepted. Cancel-safe: a future that is dropped has either sent the whole
    /// message or nothing of it.
    ///
    /// # Errors
    /// The connection is closed, or no outbox can take the message.
    pub async fn send(&self, message: impl Into<Payload>) -> Result<(), SendError> {
        let pipe = &*self.owner.0;
        let mut payload = Some(message.into());
        wait(pipe, Pipe::forget_writer, |poller| pipe.poll_send(&mut payload, poller)).await
    }

    /// Sends a ping with at most 125 bytes of payload, the rest is cut off (RFC 6455 section
    /// 5.5.2). Connections are kept alive without it: this is for servers that want more.
    pub fn ping(&self, payload: &[u8]) {
        self.owner.0.ping(payload);
    }

    /// Starts the closing handshake (RFC 6455 section 7.1.2), after what was accepted by
    /// [`send`](Self::send), and waits for its end: at most `websocket.close_timeout_ms` after the
    /// last byte of that has left. What the outbox holds then has `websocket.progress_timeout_ms`
    /// for that, and a second for each 16 KiB; a server that reads more slowly is dropped, which is
    /// [`Closed::Stalled`]. The reason is cut to 123 bytes. What arrives from now on is thrown away.
    /// A future that is dropped has asked for it all the same.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Closed {
        let pipe = &*self.owner.0;
        pipe.close(code, reason);
        wait(pipe, Pipe::forget_watcher, |poller| pipe.lock().presence.poll_ended(poller))
            .await
            .unwrap_or(Closed::Lost)
    }

    /// Why the connection ended; `None` while it is open or may be opened again.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        let state = self.owner.0.lock();
        (state.presence.stage == Stage::Ended)
            .then(|| state.presence.reason.unwrap_or(Closed::Lost))
    }

    /// The subprotocol that the server chose for the current connection.
    #[must_use]
    pub fn subprotocol(&self) -> Option<String> {
        self.owner.0.lock().subprotocol.clone()
    }

    /// Messages that were accepted by [`send`](Self::send) and had not reached the outbox when
    /// their connection was over: they were not sent, and will not be.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.owner.0.lock().lost
    }
}

impl Receiver {
    /// The next message. After the last one of a connection that was ended by a closing handshake,
    /// or by us, it is `None`; if it ended otherwise, an error comes before that. Cancel-safe: a
    /// future that is dropped has taken nothing.
    pub async fn next(&mut self) -> Option<Result<Payload, Broken>> {
        loop {
            match self.next_event().await? {
                Ok(Event::Message(payload)) => return Some(Ok(payload)),
                Ok(Event::Reconnected { .. }) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// As [`next`](Self::next), and with it where a connection that was opened again begins.
    pub async fn next_event(&mut self) -> Option<Result<Event, Broken>> {
        let event = poll_fn(|cx| self.owner.0.poll_next(cx)).await;
        if let Some(Ok(Event::Reconnected { generation })) = &event {
            self.generation = *generation;
        }
        event
    }

    /// Which connection the last message came from: 1, and one more for each reconnect that
    /// [`next`](Self::next) passed.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.owner.0.stop_reading();
    }
}
