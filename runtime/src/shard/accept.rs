//! Taking connections from the listeners, and pausing where there is no room for them.

use std::io;

use hioload_pools::ObjectPool;

use super::entry::{Entry, Phase};
use super::turn::Turn;
use crate::reactor::{Connection, Event, Listener, Reactor, Socket, Token};

/// Tokens from here on belong to listeners: no session's generation gets that far.
const LISTENER_TOKENS: u64 = 0xffff_ffff_0000_0000;

/// A shard whose accepting is paused tries again after this long, even if no connection of its own
/// has closed: the descriptors may be used up by somebody else.
const RETRY_MS: u64 = 1000;

/// At most one log line in this time says that accepting is paused.
const LOG_INTERVAL_MS: u64 = 60_000;

/// The listeners of a shard.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    slots: Vec<Slot>,
    /// Set while accepting is paused.
    retry_at_ms: Option<u64>,
    logged_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    /// `None` once the reactor has closed it.
    socket: Option<Socket>,
    /// The route of its connections if they are raw; HTTP otherwise.
    raw_route: Option<u16>,
}

impl Listeners {
    pub(crate) fn are_closed(&self) -> bool {
        self.slots.iter().all(|slot| slot.socket.is_none())
    }

    pub(crate) fn retry_at_ms(&self) -> Option<u64> {
        self.retry_at_ms
    }

    /// The listener that a token names, if it names one.
    pub(crate) fn index_of(token: Token) -> Option<usize> {
        let index = token.0.checked_sub(LISTENER_TOKENS)?;
        usize::try_from(index).ok()
    }
}

impl<R: Reactor> Turn<R> {
    /// Starts to accept from a listener. `raw_route`: the route of its connections, unless they
    /// speak HTTP first.
    ///
    /// # Errors
    /// The reactor cannot take it.
    pub(crate) fn listen(&mut self, listener: Listener, raw_route: Option<u16>) -> io::Result<()> {
        let token = Token(LISTENER_TOKENS + self.listeners.slots.len() as u64);
        let socket = self.driver.reactor.listen(listener, token)?;
        self.listeners.slots.push(Slot { socket: Some(socket), raw_route });
        Ok(())
    }

    pub(super) fn listener_event(&mut self, index: usize, event: Event) {
        match event {
            Event::Accepted(connection) => self.accepted(index, connection),
            Event::AcceptFailed(error) => self.pause_accept(&error),
            Event::Closed => self.listeners.slots[index].socket = None,
            other => unreachable!("a listener has no {other:?}"),
        }
    }

    /// Accepts again, if it was paused and the server does not end.
    pub(super) fn resume_accept(&mut self) {
        if self.listeners.retry_at_ms.take().is_none() || self.drain_until_ms.is_some() {
            return;
        }
        for socket in self.listeners.slots.iter().filter_map(|slot| slot.socket) {
            self.driver.reactor.accept(socket, true);
        }
    }

    pub(super) fn close_listeners(&mut self) {
        for socket in self.listeners.slots.iter().filter_map(|slot| slot.socket) {
            self.driver.reactor.close(socket);
        }
    }

    fn accepted(&mut self, index: usize, connection: Connection) {
        if self.drain_until_ms.is_some() {
            return;
        }
        self.driver.shard.counters.accepted += 1;
        let raw_route = self.listeners.slots[index].raw_route;
        // A shard that is full has no place even for one that comes instead of another.
        if raw_route.is_none() && self.entries.len() < self.entries.capacity() {
            self.evict_oldest_handshake();
        }
        let now_ms = self.driver.egress.now_ms;
        let nowhere = Socket::new(u32::MAX, 0);
        let Ok(key) = self.entries.insert(Entry::new(nowhere, now_ms)) else {
            drop(connection);
            return self.pause_accept(&io::Error::other("the shard has connections_max of them"));
        };
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.key = key;
        match self.driver.reactor.adopt(connection, Token(key.to_u64())) {
            Ok(socket) => {
                entry.socket = socket;
                self.driver.begin(entry, raw_route);
            }
            Err(error) => {
                self.entries.remove(key);
                self.pause_accept(&error);
            }
        }
    }

    /// As many handshakes as allowed are unfinished: the oldest one makes room.
    fn evict_oldest_handshake(&mut self) {
        let max = self.driver.egress.settings.handshakes_max;
        let Some(oldest) = self.driver.unfinished.surplus(&self.entries, max) else { return };
        let Some(entry) = self.entries.get_mut(oldest) else { return };
        self.driver.shard.counters.handshakes_expired += 1;
        entry.advance(Phase::Dead, self.driver.egress.now_ms);
        self.driver.settle(entry);
    }

    fn pause_accept(&mut self, error: &io::Error) {
        let now_ms = self.driver.egress.now_ms;
        self.driver.shard.counters.accept_pauses += 1;
        self.listeners.retry_at_ms = Some(now_ms + RETRY_MS);
        for socket in self.listeners.slots.iter().filter_map(|slot| slot.socket) {
            self.driver.reactor.accept(socket, false);
        }
        let quiet = |at| now_ms < at + LOG_INTERVAL_MS;
        if !self.listeners.logged_at_ms.is_some_and(quiet) {
            self.listeners.logged_at_ms = Some(now_ms);
            tracing::warn!(
                shard = self.driver.shard.index(),
                %error,
                "accepting is paused until a connection closes: raise the limit of open files \
                 (ulimit -n) or limits.connections_max"
            );
        }
    }
}
