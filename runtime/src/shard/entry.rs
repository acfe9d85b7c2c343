//! What a shard keeps for each connection: small, without any of the user's types.

use hioload_pools::{Key, Lease};
use hioload_protocol::http::HeadScanner;
use hioload_protocol::ws;

use super::deflate::DeflateId;
use super::dialing::Dialing;
use super::handler::Closed;
use super::iproto::Iproto;
use super::outbox::Outbox;
use super::settings::Settings;
use crate::reactor::Socket;

/// The state of a connection that is not a session yet.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    pub(crate) scanner: HeadScanner,
    /// What arrived of the head if it came in pieces; after the head, what came behind it.
    pub(crate) held: Option<Lease>,
    /// How long the head is, once it has ended.
    pub(crate) head_bytes: u32,
    /// How much of `held` is filled.
    pub(crate) filled: u32,
}

/// Which protocol runs on a connection.
#[derive(Debug)]
pub(crate) enum Protocol {
    /// The HTTP head that may become an upgrade.
    Handshake(Handshake),
    /// A connection that we make, up to the 101.
    Dialing(Box<Dialing>),
    /// RFC 6455.
    WebSocket(ws::Connection<Lease>),
    /// Packets of iproto, from the first byte on.
    Iproto(Box<Iproto>),
    /// None: bytes go to the handler as they come.
    Raw,
}

/// Where a connection is in its life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Ours: being connected, or waiting for the 101.
    Dialing,
    /// Waiting for the end of the HTTP head.
    Head,
    /// The handler answers the upgrade later.
    Deciding,
    /// Messages go both ways.
    Open,
    /// We sent a close frame and wait for the peer's.
    Closing,
    /// Its socket is taken away from the shard: what is queued leaves, then the reactor gives it
    /// back.
    Leaving,
    /// Our side is done: what is queued leaves, then FIN, then the peer's bytes are discarded
    /// until its FIN, so that no reset destroys what it has not read yet.
    Lingering,
    /// The reactor was told to close; its last completion is awaited.
    Dead,
}

/// Where received bytes go at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiving {
    Paused,
    Pool,
    Into,
}

/// One connection of a shard.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) protocol: Protocol,
    pub(crate) outbox: Outbox,
    /// The key of this entry, as the session's id on its shard.
    pub(crate) key: Key,
    /// The key of the user's data in the route's slab.
    pub(crate) user: Key,
    pub(crate) socket: Socket,
    /// Its place among the sessions that compress.
    pub(crate) deflate: DeflateId,
    /// When bytes last arrived.
    pub(crate) heard_ms: u64,
    /// When the current phase began, or a blocked send last moved. From [`Phase::Closing`] on: when
    /// the time is over that its end has, which nothing extends that moves. A peer that takes its
    /// backlog by the byte must not keep it for ever.
    pub(crate) mark_ms: u64,
    pub(crate) route: u16,
    pub(crate) phase: Phase,
    pub(crate) receiving: Receiving,
    pub(crate) flags: Flags,
    /// Why it ends: the first cause counts.
    ending: Option<Closed>,
}

/// The yes-or-no facts about a connection, a bit each: there is one for every idle connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    /// Those of an open connection for which something is to be done when an event is over.
    const UNSETTLED: Self = {
        let mut flags = Self(0);
        flags.set_counted(true);
        flags.set_unarmed(true);
        flags.set_paused(true);
        flags
    };

    const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident / $set:ident: $bit:literal,)*) => {
        impl Flags {
            $(
                $(#[$doc])*
                pub(crate) const fn $name(self) -> bool {
                    self.0 & (1 << $bit) != 0
                }

                pub(crate) const fn $set(&mut self, on: bool) {
                    self.0 = self.0 & !(1 << $bit) | (on as u32) << $bit;
                }
            )*
        }
    };
}

flags! {
    /// In the list of those who are told at the end of the turn where to receive.
    unaimed / set_unaimed: 0,
    /// In the list of dirty sessions.
    dirty / set_dirty: 1,
    /// A send was answered `Full`: `drained` is owed.
    full / set_full: 2,
    /// Receiving is held back because the peer does not read.
    held_back / set_held_back: 3,
    /// A ping of ours has not been answered by any byte yet.
    pinged / set_pinged: 4,
    /// `opened` was called, and `closed` was not yet.
    opened / set_opened: 5,
    /// Counted among the unfinished handshakes.
    counted / set_counted: 6,
    /// The peer sent FIN.
    ended / set_ended: 7,
    /// Its last send was handed over in the last turn: whether it blocked is not known yet.
    doubtful / set_doubtful: 8,
    /// FIN was asked for.
    shut / set_shut: 9,
    /// The reactor was told to close.
    released / set_released: 10,
    /// Subscribed to a topic, or was once.
    subscribed / set_subscribed: 11,
    /// It has something in the extras of the shard.
    extra / set_extra: 12,
    /// A timer or the deadline of its handler was set: the connection's timer is not yet.
    unarmed / set_unarmed: 13,
    /// We opened this connection.
    client / set_client: 14,
    /// Receiving is paused because the handler wants no more for now.
    paused / set_paused: 15,
    /// It ends, and what was queued then has not all left yet, as far as is known.
    leaving / set_leaving: 16,
    /// It was dropped with something unsent, because its peer took that too slowly.
    cut / set_cut: 17,
}

impl Entry {
    pub(crate) fn new(socket: Socket, now_ms: u64) -> Self {
        Self {
            protocol: Protocol::Raw,
            outbox: Outbox::new(),
            key: Key::from_u64(0),
            user: Key::from_u64(0),
            socket,
            deflate: DeflateId::NONE,
            heard_ms: now_ms,
            mark_ms: now_ms,
            route: 0,
            phase: Phase::Open,
            receiving: Receiving::Paused,
            flags: Flags::default(),
            ending: None,
        }
    }

    /// Moves on to a later phase; never back.
    pub(crate) fn advance(&mut self, phase: Phase, now_ms: u64) {
        assert!(phase >= self.phase, "a connection never goes back in its life");
        self.phase = phase;
        self.mark_ms = now_ms;
    }

    /// Moves on to a phase of its end. What is queued has its time from the first of them on,
    /// decided once; what follows has a time of its own.
    pub(crate) fn end(&mut self, phase: Phase, settings: &Settings, now_ms: u64) {
        let begins = self.phase < Phase::Closing;
        let left_by_ms = self.mark_ms;
        self.advance(phase, now_ms);
        if begins {
            self.flags.set_leaving(true);
            self.heard_ms = now_ms;
            self.mark_ms = now_ms + settings.backlog_ms(self.outbox.queued());
        } else if self.flags.leaving() {
            self.mark_ms = left_by_ms;
        } else {
            self.mark_ms = now_ms + settings.close_timeout_ms;
        }
    }

    /// In an end: notes that nothing is queued any more, if that is so and news.
    pub(crate) fn note_left(&mut self, settings: &Settings, now_ms: u64) -> bool {
        let news = self.flags.leaving() && self.outbox.queued() == 0;
        if news {
            self.flags.set_leaving(false);
            self.mark_ms = now_ms + settings.close_timeout_ms;
        }
        news
    }

    /// Notes why it ends, unless that is known.
    pub(crate) fn blame(&mut self, cause: Closed) {
        self.ending.get_or_insert(cause);
    }

    /// Why it ended: what was cut says so, unless it ended because its peer read too slowly.
    pub(crate) fn ending(&self) -> Closed {
        match self.cause() {
            Closed::SlowReader => Closed::SlowReader,
            _ if self.flags.cut() => Closed::Stalled,
            cause => cause,
        }
    }

    /// What began the end. Without a cause the connection was lost.
    pub(crate) fn cause(&self) -> Closed {
        self.ending.unwrap_or(Closed::Lost)
    }

    /// It was not read from for a while: neither its silence nor the age of its message counts.
    pub(crate) fn read_again(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        match &mut self.protocol {
            Protocol::WebSocket(connection) => connection.restart_age(now_ms),
            Protocol::Iproto(iproto) => iproto.connection.restart_clocks(now_ms),
            Protocol::Handshake(_) | Protocol::Dialing(_) | Protocol::Raw => {}
        }
    }

    pub(crate) fn iproto(&self) -> Option<&Iproto> {
        if let Protocol::Iproto(iproto) = &self.protocol { Some(iproto) } else { None }
    }

    pub(crate) fn iproto_mut(&mut self) -> Option<&mut Iproto> {
        if let Protocol::Iproto(iproto) = &mut self.protocol { Some(iproto) } else { None }
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_mid_message(&self) -> bool {
        match &self.protocol {
            Protocol::WebSocket(connection) => connection.is_mid_message(),
            Protocol::Iproto(iproto) => iproto.connection.is_mid_packet(),
            Protocol::Handshake(_) | Protocol::Dialing(_) | Protocol::Raw => false,
        }
    }

    /// Whether it is open, between two messages and received from as ever, and nothing waits: then
    /// there is nothing to settle, and its timer can stay as it is.
    pub(crate) fn is_steady(&self) -> bool {
        self.phase == Phase::Open
            && self.receiving == Receiving::Pool
            && !self.flags.any(Flags::UNSETTLED)
            && !self.outbox.is_blocked()
            && !self.is_mid_message()
    }

    /// Whether what the peer sends is received at all.
    pub(crate) fn wants_bytes(&self) -> bool {
        let waits = matches!(self.phase, Phase::Deciding | Phase::Dead) || self.is_unread();
        let unread = self.flags.held_back() || self.flags.paused();
        !waits && !unread && !self.flags.ended()
    }

    /// Whether what the peer sends is for somebody else to read.
    pub(crate) fn is_unread(&self) -> bool {
        self.phase == Phase::Leaving && !self.iproto().is_some_and(Iproto::is_skipping)
    }

    /// Whether the peer is to be the first to close: a WebSocket client leaves that to the server
    /// (RFC 6455 section 7.1.1).
    pub(crate) fn closes_last(&self) -> bool {
        self.flags.client() && matches!(self.protocol, Protocol::WebSocket(_))
    }

    /// Whether the user may still send on it.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }
}

#[cfg(test)]
mod tests {
    use super::Entry;

    #[test]
    fn an_entry_stays_small() {
        // There is one for every idle connection: what only some have belongs behind a box.
        assert_eq!(size_of::<Entry>(), 184);
    }
}
