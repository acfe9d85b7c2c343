//! The route of a WebSocket path: messages out of bytes, and what the protocol answers by itself.

use std::any::Any;

use hioload_pools::{Lease, ObjectPool};
use hioload_protocol::http::{self, Acceptance, WebSocketRequest};
use hioload_protocol::ws::{
    self, Body, CloseCode, Control, Env, Event, MessageKind, Opcode, Role, Violation,
};

use super::entry::{Entry, Phase, Protocol};
use super::extra::SessionStats;
use super::handler::{Closed, Decision, Handler, Options, Upgrade};
use super::message::Message;
use super::request::Request;
use super::route::{Context, Host, Outcome, Route, fail_with, linger};
use super::share::Share;
use crate::config::Compression;

/// From this many bytes still to come on, the rest of a frame is received straight into its
/// message: below it, one more copy is cheaper than aiming the receive.
const DIRECT_BYTES_MIN: usize = 32 * 1024;

/// A WebSocket route.
pub(crate) struct WebSocketRoute<H: Handler> {
    pub(super) host: Host<H, H::Session>,
    /// Its own setting, or that of the configuration.
    compression: Option<Compression>,
}

impl<H: Handler> WebSocketRoute<H> {
    pub(crate) fn new(handler: H, sessions_max: usize, compression: Option<Compression>) -> Self {
        Self { host: Host::new(handler, sessions_max), compression }
    }

    fn decide(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        answer: Upgrade<H::Session>,
        request: &Request<'_>,
        websocket: &WebSocketRequest<'_>,
    ) -> Outcome {
        let (data, subprotocol, headers, options) = match answer.0 {
            Decision::Accept { data, subprotocol, headers, options } => {
                (data, subprotocol, headers, options)
            }
            Decision::Refuse(response) => return Outcome::Refused(response),
            Decision::Later(token) if token.0.key == entry.key => return Outcome::Later,
            Decision::Later(_) => {
                tracing::error!("a handler put a handshake off with the token of another one");
                return Outcome::Refused(http::Response::text(500, "bad upgrade token"));
            }
        };
        let subprotocol = subprotocol.as_deref();
        if let Some(name) = subprotocol
            && !websocket.subprotocols().any(|offered| offered == name)
        {
            tracing::error!(name, "a handler chose a subprotocol that the client did not offer");
            return Outcome::Refused(http::Response::text(500, "bad subprotocol choice"));
        }
        let compression = self.compression.unwrap_or(cx.egress.settings.compression);
        let policy = compression.policy();
        let deflate = policy.and_then(|policy| policy.accept(websocket.extensions()));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let acceptance = Acceptance { subprotocol, deflate, headers: &headers };
        let mut head = std::mem::take(&mut cx.egress.scratch);
        head.clear();
        if let Err(error) = websocket.accept(&mut head, &acceptance) {
            tracing::error!(%error, "a handler gave a header that cannot be sent");
            return Outcome::Refused(http::Response::text(500, "bad response header"));
        }
        let Ok(user) = self.host.sessions.insert(data) else {
            return Outcome::Refused(http::Response::text(503, "too many sessions"));
        };
        cx.link(entry).send_raw(&head);
        cx.egress.scratch = head;
        if entry.phase == Phase::Dead {
            // Nobody was promised a session that could not be told of.
            drop(self.host.sessions.remove(user));
            return Outcome::Dropped;
        }
        entry.user = user;
        let mut connection = ws::Connection::new(Role::Server);
        if let Some(agreed) = &deflate {
            connection = connection.with_deflate();
            entry.deflate = cx.egress.windows.open(agreed, Role::Server, &compression);
        }
        entry.protocol = Protocol::WebSocket(connection);
        entry.advance(Phase::Open, cx.egress.now_ms);
        entry.flags.set_opened(true);
        keep(cx, entry, options, subprotocol, request);
        self.host.call(cx, entry, |handler, shard, session| handler.opened(shard, session));
        Outcome::Accepted
    }

    fn message(&mut self, cx: &mut Context<'_>, entry: &mut Entry, message: Message) {
        if entry.is_open() {
            cx.shard.counters.messages += 1;
            cx.egress.extras.count_in(entry, message.len());
            self.host.call(cx, entry, |handler, shard, session| {
                handler.message(shard, session, message)
            });
        }
    }

    /// A message that has to be inflated first; text is checked after that.
    fn compressed(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        kind: MessageKind,
        payload: &[u8],
    ) {
        if !entry.is_open() {
            return;
        }
        let inflated = cx.egress.inflate(entry.deflate, payload).and_then(|lease| {
            let is_text = kind == MessageKind::Text;
            if is_text && ws::utf8::check(&lease).is_err() {
                return Err(Violation::TextNotUtf8);
            }
            Ok(lease)
        });
        match inflated {
            Ok(lease) => self.message(cx, entry, Message::new(kind, lease)),
            Err(violation) => fail(cx, entry, &violation.into()),
        }
    }

    /// Whatever is not a message that lies as a whole in `bytes`, which were read.
    fn event(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        bytes: &Lease,
        event: Event<Lease>,
    ) {
        match event {
            Event::Message(ws::Message { kind, body, compressed: true }) => {
                self.compressed(cx, entry, kind, body.bytes(bytes));
            }
            Event::Message(ws::Message {
                kind, body: Body::Assembled { mut buffer, len }, ..
            }) => {
                buffer.truncate(len);
                self.message(cx, entry, Message::new(kind, buffer));
            }
            Event::Message(ws::Message { body: Body::Window { .. }, .. }) => {
                unreachable!("these are taken out of their bytes")
            }
            Event::Ping(payload) => answer_ping(cx, entry, payload),
            Event::Pong(_) => {}
            Event::Close { code, reason } => answer_close(cx, entry, code, &reason),
        }
    }
}

impl<H: Handler> Route for WebSocketRoute<H> {
    fn upgrade(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        request: &Request<'_>,
        websocket: &WebSocketRequest<'_>,
    ) -> Outcome {
        let answer = self.host.handler.upgrade(cx.shard, request);
        self.decide(cx, entry, answer, request, websocket)
    }

    fn answered(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        answer: Box<dyn Any>,
        request: &Request<'_>,
        websocket: &WebSocketRequest<'_>,
    ) -> Outcome {
        match answer.downcast::<Upgrade<H::Session>>() {
            Ok(answer) => self.decide(cx, entry, *answer, request, websocket),
            Err(_) => {
                tracing::error!("a handshake was answered with another route's session type");
                Outcome::Refused(http::Response::text(500, "bad upgrade answer"))
            }
        }
    }

    fn received(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        mut bytes: Lease,
        share: Share,
    ) -> Option<Lease> {
        while entry.phase <= Phase::Closing {
            let Protocol::WebSocket(connection) = &mut entry.protocol else { return None };
            let (mut memory, limits, now_ms) = cx.egress.environment();
            let mut env = Env { limits, memory: &mut memory, now_ms };
            let mut at = 0;
            match connection.read(&mut bytes, &mut at, &mut env) {
                Ok(Some(Event::Message(ws::Message {
                    kind,
                    body: Body::Window { payload, header_at },
                    compressed: false,
                }))) => {
                    // Most receives are one message: then nobody shares its window.
                    let rest = (at < bytes.len()).then(|| bytes.split_off(at));
                    let start = header_at.unwrap_or(payload.start);
                    bytes.truncate(payload.end);
                    bytes.advance(start);
                    let message = Message::with_room(kind, bytes, payload.start - start);
                    self.message(cx, entry, message);
                    bytes = rest?;
                    if share.may_leave(bytes.len(), at) {
                        return Some(bytes);
                    }
                }
                Ok(Some(event)) => {
                    self.event(cx, entry, &bytes, event);
                    bytes.advance(at);
                }
                Ok(None) => return None,
                Err(error) => {
                    fail(cx, entry, &error);
                    return None;
                }
            }
        }
        None
    }

    fn aim(&mut self, cx: &mut Context<'_>, entry: &mut Entry) -> Option<Lease> {
        let Protocol::WebSocket(connection) = &mut entry.protocol else { return None };
        let (mut memory, limits, now_ms) = cx.egress.environment();
        let mut env = Env { limits, memory: &mut memory, now_ms };
        match connection.direct(DIRECT_BYTES_MIN, &mut env) {
            Ok(direct) => direct.map(|direct| direct.buffer.split_off(direct.filled)),
            Err(error) => {
                fail(cx, entry, &error);
                None
            }
        }
    }

    fn filled(&mut self, cx: &mut Context<'_>, entry: &mut Entry, lease: Lease, filled: usize) {
        let Protocol::WebSocket(connection) = &mut entry.protocol else { return };
        let Some(buffer) = connection.buffer_mut() else { return };
        if buffer.unsplit(lease).is_err() {
            unreachable!("the lease was split off this very buffer");
        }
        let (mut memory, limits, now_ms) = cx.egress.environment();
        let mut env = Env { limits, memory: &mut memory, now_ms };
        match connection.filled(filled, &mut env) {
            Ok(Some(Event::Message(ws::Message {
                kind,
                body: Body::Assembled { mut buffer, len },
                compressed,
            }))) => {
                buffer.truncate(len);
                if compressed {
                    self.compressed(cx, entry, kind, &buffer);
                } else {
                    self.message(cx, entry, Message::new(kind, buffer));
                }
            }
            Ok(Some(_)) => unreachable!("only an assembled message can be received straight"),
            Ok(None) => {}
            Err(error) => fail(cx, entry, &error),
        }
    }

    fn drained(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.host.call(cx, entry, |handler, shard, session| handler.drained(shard, session));
    }

    fn timer(&mut self, cx: &mut Context<'_>, entry: &mut Entry, token: u64) {
        self.host.call(cx, entry, |handler, shard, session| handler.timer(shard, session, token));
    }

    fn closed(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        let reason = entry.ending();
        self.host.last_call(cx, entry, |handler, shard, session| {
            handler.closed(shard, session, reason);
        });
    }
}

/// Keeps what the handler asked for, for the life of the session.
fn keep(
    cx: &mut Context<'_>,
    entry: &mut Entry,
    options: Options,
    subprotocol: Option<&str>,
    request: &Request<'_>,
) {
    if options == Options::default() && subprotocol.is_none() {
        return;
    }
    let now = cx.shard.now();
    let extra = cx.egress.extras.make(entry);
    extra.subprotocol = subprotocol.map(Into::into);
    extra.kept = options.keep_request.then(|| Box::new(request.keep()));
    extra.stats = options.with_stats.then(|| {
        Box::new(SessionStats {
            messages_in: 0,
            bytes_in: 0,
            messages_out: 0,
            bytes_out: 0,
            opened_at: now,
            heard_at: now,
        })
    });
}

/// Answers a ping at once while the peer reads, and only the newest one later if it does not
/// (RFC 6455 sections 5.5.2 and 5.5.3).
fn answer_ping(cx: &mut Context<'_>, entry: &mut Entry, payload: Control) {
    if !entry.is_open() {
        return;
    }
    if entry.outbox.queued() <= cx.egress.settings.outbox_low_bytes {
        // One that still waits is older: it is left unanswered, as this one is the newest.
        cx.egress.late_pongs.remove(&entry.key.index);
        cx.link(entry).send_control(Opcode::Pong, &payload);
    } else {
        cx.egress.late_pongs.insert(entry.key.index, payload);
    }
}

/// The peer's close frame: ours is the answer, or it was the answer to ours
/// (RFC 6455 section 5.5.1).
fn answer_close(cx: &mut Context<'_>, entry: &mut Entry, code: Option<CloseCode>, reason: &[u8]) {
    if entry.is_open() {
        entry.blame(Closed::ByPeer(code));
        // The protocol has checked it: what is no UTF-8 does not get here.
        if let Ok(text) = std::str::from_utf8(reason)
            && !text.is_empty()
        {
            cx.egress.extras.make(entry).close_reason = Some(text.into());
        }
        cx.link(entry).send_close(code, "");
    }
    linger(cx, entry);
}

/// Fails the connection (RFC 6455 section 7.1.7): a close frame with the code that blames the
/// peer, then FIN.
fn fail(cx: &mut Context<'_>, entry: &mut Entry, error: &ws::Error) {
    cx.shard.counters.violations += 1;
    tracing::debug!(violation = %error.violation, "a peer broke the protocol");
    fail_with(cx, entry, error.violation.into());
}
