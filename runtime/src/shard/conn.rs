//! One connected byte stream, as the shard uses it.

use std::net::SocketAddr;

use hioload_pools::Shared;

use crate::reactor::{Reactor, Receive, Socket};

/// A connected stream: what the shard asks of a connection when it flushes, pauses and closes it.
///
/// Guarantees: segments leave in their order; a `shutdown` comes after everything sent before it;
/// a `close` drops what was not sent. The stream owns the segments from `send` on.
/// [`FakeConn`](crate::testkit::FakeConn) records the calls.
pub trait NetConn {
    /// Sends the segments in their order, as one gathered send.
    fn send<I: IntoIterator<Item = Shared>>(&mut self, segments: I);

    /// Says where received bytes go.
    fn receive(&mut self, mode: Receive);

    /// Ends our side once everything has left.
    fn shutdown(&mut self);

    /// Ends the connection at once.
    fn close(&mut self);

    /// The address of the other side, if it has one.
    fn peer_address(&self) -> Option<SocketAddr>;

    /// The address of our side, if it has one.
    fn local_address(&self) -> Option<SocketAddr>;
}

/// The addresses of sockets, as sessions ask for them: every reactor knows them, and a session
/// knows no reactor.
pub(crate) trait Addresses {
    fn peer(&self, socket: Socket) -> Option<SocketAddr>;
    fn local(&self, socket: Socket) -> Option<SocketAddr>;
}

impl<R: Reactor> Addresses for R {
    fn peer(&self, socket: Socket) -> Option<SocketAddr> {
        self.peer_address(socket)
    }

    fn local(&self, socket: Socket) -> Option<SocketAddr> {
        self.local_address(socket)
    }
}

/// A socket of a reactor as a [`NetConn`].
pub(crate) struct Wire<'a, R> {
    pub(crate) reactor: &'a mut R,
    pub(crate) socket: Socket,
}

impl<R: Reactor> NetConn for Wire<'_, R> {
    fn send<I: IntoIterator<Item = Shared>>(&mut self, segments: I) {
        self.reactor.send(self.socket, segments);
    }

    fn receive(&mut self, mode: Receive) {
        self.reactor.receive(self.socket, mode);
    }

    fn shutdown(&mut self) {
        self.reactor.shutdown(self.socket);
    }

    fn close(&mut self) {
        self.reactor.close(self.socket);
    }

    fn peer_address(&self) -> Option<SocketAddr> {
        self.reactor.peer_address(self.socket)
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.reactor.local_address(self.socket)
    }
}
