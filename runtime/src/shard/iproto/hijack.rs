//! A connection that is taken away from its shard: the socket, and what was read of it in vain.
//!
//! Comes in: the wish of a handler, then what was on its way while the outbox empties. Goes out: the
//! socket, which the reactor gives back, and the bytes in front of what it still holds. Not a byte is
//! lost or read twice, but for a packet that was being thrown away: that is thrown away to its end.

use std::io;
use std::net::TcpStream;

use bytes::Bytes;
use hioload_protocol::iproto::Unread;

use super::Iproto;
use super::error::CallError;
use crate::reactor::Connection;
use crate::shard::entry::{Entry, Phase};
use crate::shard::link::Link;

/// A connection that belongs to nobody any more but to whoever holds this. Dropping it closes it.
#[derive(Debug)]
pub struct Hijacked {
    /// The socket.
    pub connection: Connection,
    /// What was read of it and not consumed, such as half a packet: it comes before what the socket
    /// still holds.
    pub unread: Bytes,
}

impl Hijacked {
    /// The socket, which is blocking from here on as [`TcpStream::connect`] makes it, and what is to
    /// be read before it. `TCP_NODELAY` stays set.
    ///
    /// # Errors
    /// The socket cannot be made blocking, or is that of a simulation.
    pub fn into_tcp(self) -> io::Result<(TcpStream, Bytes)> {
        let Self { connection, unread } = self;
        let simulated = "not converted: a simulated connection has no socket; adopt it instead";
        let fd = connection
            .into_descriptor()
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, simulated))?;
        let stream = TcpStream::from(fd);
        stream.set_nonblocking(false)?;
        Ok((stream, unread))
    }
}

/// Where a connection is that somebody takes.
#[derive(Debug)]
pub(super) struct Hijack {
    unread: Unread,
    /// The reactor was told to release the socket.
    releasing: bool,
    /// It has, and the socket was given away.
    done: bool,
}

impl Iproto {
    /// Whether it reads on to the end of a packet that nobody waits for.
    pub(crate) fn is_skipping(&self) -> bool {
        self.hijack.as_ref().is_some_and(|hijack| hijack.unread.skip > 0)
    }

    /// Whether the reactor is to release the socket: asked when nothing is left to be sent, and
    /// answered with yes once.
    pub(crate) fn may_release(&mut self) -> bool {
        let Some(hijack) = &mut self.hijack else { return false };
        let may = hijack.unread.skip == 0 && !hijack.releasing;
        hijack.releasing |= may;
        may
    }

    /// Whether its socket was given away.
    pub(super) fn is_hijacked(&self) -> bool {
        self.hijack.as_ref().is_some_and(|hijack| hijack.done)
    }

    /// Keeps what arrived for whoever takes the socket.
    fn keep(&mut self, mut bytes: &[u8]) {
        let Some(hijack) = &mut self.hijack else { return };
        let Unread { bytes: kept, skip } = &mut hijack.unread;
        let skipped = bytes.len().min(*skip);
        *skip -= skipped;
        bytes = &bytes[skipped..];
        kept.extend_from_slice(bytes);
    }

    /// What whoever takes the socket finds beside it.
    pub(super) fn take_unread(&mut self) -> Option<Bytes> {
        let hijack = self.hijack.as_mut()?;
        hijack.done = true;
        Some(std::mem::take(&mut hijack.unread.bytes).into())
    }
}

impl Link<'_> {
    /// Takes the connection out of iproto: what is queued leaves, then the socket is given away.
    pub(super) fn hijack(&mut self) -> Result<(), CallError> {
        let now_ms = self.egress.now_ms;
        let open = self.entry.is_open().then(|| self.entry.iproto_mut()).flatten();
        let Some(iproto) = open.filter(|iproto| !iproto.connection.is_stopped()) else {
            return Err(CallError::Stopped);
        };
        let unread = iproto.connection.hijack();
        iproto.hijack = Some(Box::new(Hijack { unread, releasing: false, done: false }));
        self.entry.advance(Phase::Leaving, now_ms);
        self.mark_dirty();
        Ok(())
    }

    /// Bytes arrived, or were left over, of a connection that is being taken.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if let Some(iproto) = self.entry.iproto_mut() {
            iproto.keep(bytes);
            self.mark_dirty();
        }
    }

    /// The peer sends nothing more.
    pub(super) fn keep_no_more(&mut self) {
        if let Some(hijack) = self.entry.iproto_mut().and_then(|it| it.hijack.as_mut()) {
            hijack.unread.skip = 0;
            self.mark_dirty();
        }
    }
}

/// Whether somebody takes the socket of this connection.
pub(super) fn is_leaving(entry: &Entry) -> bool {
    entry.phase == Phase::Leaving
}
