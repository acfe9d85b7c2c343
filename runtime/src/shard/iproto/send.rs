//! The way from a connection to its outbox: headers in front of bodies, bounds, policies.

use std::time::Duration;

use hioload_protocol::iproto::{Header, Refused, ReplyTo};

use super::body::{Kind, Payload};
use super::error::CallError;
use super::{Caller, Iproto};
use crate::config::SlowReader;
use crate::shard::Sent;
use crate::shard::entry::Phase;
use crate::shard::extra::tick_after;
use crate::shard::handler::Closed;
use crate::shard::link::Link;
use crate::shard::outbox::{COPIED_BYTES_MAX, Exhausted};

impl Link<'_> {
    fn iproto(&mut self) -> Option<&mut Iproto> {
        if self.entry.is_open() { self.entry.iproto_mut() } else { None }
    }

    pub(super) fn send_reply(&mut self, to: ReplyTo, payload: Payload<'_>) -> Sent {
        let len = payload.bytes().len();
        let Some(iproto) = self.iproto() else { return Sent::Dropped };
        match iproto.connection.reply(to, len) {
            Err(Refused { why, token }) => {
                iproto.connection.discard(token);
                tracing::error!(%why, "a reply cannot be sent: its request is left unanswered");
                Sent::Dropped
            }
            Ok(header) if self.admits_packet(len) => self.send_packet(header, payload),
            Ok(_) => Sent::Dropped,
        }
    }

    pub(super) fn send_call(
        &mut self,
        msg: u32,
        payload: Payload<'_>,
        timeout: Option<Duration>,
        caller: Caller,
    ) -> Result<Header, CallError> {
        let settings = std::rc::Rc::clone(&self.egress.settings);
        let timeout = timeout.unwrap_or(Duration::from_millis(settings.request_timeout_ms));
        // Not in this turn: a handler that calls again without time must not keep others from theirs.
        let deadline_ms = tick_after(self.egress.now, timeout).max(self.egress.now_ms + 1);
        let len = payload.bytes().len();
        if self.iproto().is_none_or(|iproto| iproto.connection.is_stopped()) {
            return Err(CallError::Stopped);
        }
        if !self.admits(len) {
            return Err(CallError::Full);
        }
        let Some(iproto) = self.iproto() else { return Err(CallError::Stopped) };
        let called = iproto.connection.call(msg, len, deadline_ms, caller, &settings.iproto);
        let header = called.map_err(|refused| refused.why)?;
        if self.send_packet(header, payload) == Sent::Dropped {
            self.cancel_call(&header);
            return Err(CallError::Full);
        }
        // What was not read because the peer does not read may hold the response.
        self.read_on();
        Ok(header)
    }

    pub(super) fn send_notify(
        &mut self,
        msg: u32,
        payload: Payload<'_>,
    ) -> Result<Sent, CallError> {
        let len = payload.bytes().len();
        if self.iproto().is_some() && !self.admits(len) {
            return Err(CallError::Full);
        }
        let Some(iproto) = self.iproto() else { return Err(CallError::Stopped) };
        let header = iproto.connection.notify(msg, len)?;
        match self.send_packet(header, payload) {
            Sent::Dropped => Err(CallError::Full),
            sent => Ok(sent),
        }
    }

    pub(super) fn cancel_call(&mut self, call: &Header) -> bool {
        let settings = std::rc::Rc::clone(&self.egress.settings);
        let now_ms = self.egress.now_ms;
        let iproto = self.entry.iproto_mut();
        iproto.is_some_and(|it| it.connection.cancel(call, now_ms, &settings.iproto).is_some())
    }

    /// Leaves a request without an answer.
    pub(super) fn discard(&mut self, to: ReplyTo) {
        if let Some(iproto) = self.entry.iproto_mut() {
            iproto.connection.discard(to);
        }
    }

    /// Queues a packet without a body that the connection itself sends.
    pub(super) fn send_header(&mut self, header: Header) {
        if self.admits_packet(0) {
            self.send_packet(header, ().into());
        }
    }

    /// Ends the connection at once: what is queued leaves, then FIN.
    pub(super) fn end(&mut self, cause: Closed) {
        if self.entry.is_open() {
            self.entry.blame(cause);
            let now_ms = self.egress.now_ms;
            self.entry.end(Phase::Lingering, &self.egress.settings, now_ms);
            self.mark_dirty();
        }
    }

    /// Whether a body of `len` bytes may be queued. A packet that must not be lost and does not fit
    /// ends the connection: by the policy "drop" it is lost instead.
    fn admits_packet(&mut self, len: usize) -> bool {
        let admitted = self.admits(len);
        if !admitted && self.egress.settings.slow_reader != SlowReader::Drop {
            self.end(Closed::SlowReader);
        }
        admitted
    }

    fn send_packet(&mut self, header: Header, payload: Payload<'_>) -> Sent {
        let len = payload.bytes().len();
        let header = header.encode();
        let queued = match payload.0 {
            Kind::Pooled(message) if len > COPIED_BYTES_MAX => {
                self.append_behind(&header, message, None)
            }
            _ => self.egress.stage(&mut self.entry.outbox, &header, payload.bytes(), None),
        };
        match queued {
            Ok(()) => self.verdict(len),
            Err(Exhausted) => {
                // A peer that waits for it must not wait in vain.
                self.end(Closed::OutOfMemory);
                Sent::Dropped
            }
        }
    }

    fn read_on(&mut self) {
        if self.entry.flags.held_back() {
            self.entry.flags.set_held_back(false);
            self.entry.read_again(self.egress.now_ms);
        }
    }
}
