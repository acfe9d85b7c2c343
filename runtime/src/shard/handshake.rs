//! From accept to 101: the HTTP head, and who answers it.
//!
//! Comes in: the bytes of a connection that is not a session yet. Goes out: a session handed to
//! its route, a plain answer, or a refusal; after either of the latter the connection is closed.

use std::any::Any;
use std::collections::VecDeque;

use hioload_pools::{Key, Lease, ObjectPool, Slab};
use hioload_protocol::http::{Head, Refusal, Response};

use super::entry::{Entry, Handshake, Phase, Protocol};
use super::outbox::Egress;
use super::paths::{Params, Paths};
use super::request::Request;
use super::route::{Context, Outcome, Route, linger};
use super::session::SessionId;
use super::share::Share;

/// Room for a head that came in pieces, at first: most heads are shorter.
const HELD_BYTES: usize = 1024;

/// The unfinished handshakes of a shard, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    /// Keys in order of accept; some have finished in the meantime.
    keys: VecDeque<Key>,
    count: usize,
}

impl Unfinished {
    pub(crate) fn began(&mut self, entry: &mut Entry) {
        entry.flags.set_counted(true);
        self.count += 1;
        self.keys.push_back(entry.key);
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn finished(&mut self, entry: &mut Entry) {
        if entry.flags.counted() {
            entry.flags.set_counted(false);
            self.count -= 1;
        }
    }

    /// The oldest one, if there are as many as allowed: it has to go before the next may come.
    pub(crate) fn surplus(&mut self, entries: &Slab<Entry>, max: usize) -> Option<Key> {
        let unfinished = |key: &Key| entries.get(*key).is_some_and(|entry| entry.flags.counted());
        if self.keys.len() >= 2 * max {
            self.keys.retain(unfinished);
        }
        if self.count < max {
            return None;
        }
        while let Some(key) = self.keys.pop_front() {
            if unfinished(&key) {
                return Some(key);
            }
        }
        None
    }
}

/// Bytes of a connection whose head has not ended yet.
pub(crate) fn received(
    cx: &mut Context<'_>,
    routes: &mut [Box<dyn Route>],
    paths: &Paths,
    entry: &mut Entry,
    bytes: Lease,
) {
    let Protocol::Handshake(handshake) = &mut entry.protocol else { return };
    match collect(cx.egress, handshake, bytes) {
        Collected::Whole { bytes, end } => answer(cx, routes, paths, entry, bytes, end),
        Collected::Partly => {}
        Collected::Refused(refusal) => reject(cx, entry, &refusal),
        Collected::Exhausted => entry.advance(Phase::Dead, cx.egress.now_ms),
    }
}

/// Bytes that were on their way when the handler decided to answer later: the deadline bounds how
/// long they are kept, and a buffer of the reactor how many they are.
pub(crate) fn received_behind_head(cx: &mut Context<'_>, entry: &mut Entry, bytes: &[u8]) {
    let Protocol::Handshake(handshake) = &mut entry.protocol else { return };
    if !hold(cx.egress, handshake, bytes) {
        entry.advance(Phase::Dead, cx.egress.now_ms);
    }
}

/// An answer to a handshake that was left open.
pub(crate) fn answered(
    cx: &mut Context<'_>,
    routes: &mut [Box<dyn Route>],
    paths: &Paths,
    entry: &mut Entry,
    answer: Box<dyn Any>,
) {
    let Protocol::Handshake(handshake) = &mut entry.protocol else { return };
    let Some(mut bytes) = handshake.held.take() else { return };
    bytes.truncate(handshake.filled as usize);
    let limits = cx.egress.settings.head;
    let end = handshake.head_bytes as usize;
    let route = &mut routes[usize::from(entry.route)];
    let outcome = match Head::parse(&bytes[..end], &limits) {
        Ok(head) => match head.websocket() {
            Ok(websocket) => {
                let params = paths.websocket(head.path()).map(|(_, params)| params);
                let request = request_of(cx, entry, &head, &bytes[..end], params);
                route.answered(cx, entry, answer, &request, &websocket)
            }
            Err(refusal) => return reject(cx, entry, &refusal),
        },
        Err(refusal) => return reject(cx, entry, &refusal),
    };
    conclude(cx, routes, entry, bytes, end, outcome);
}

/// What became of more bytes of a head.
pub(super) enum Collected {
    /// The head ends at `end`; what follows belongs to the protocol after it.
    Whole {
        bytes: Lease,
        end: usize,
    },
    Partly,
    Refused(Refusal),
    Exhausted,
}

/// Looks for the end of a head, and keeps what has arrived of it until then.
pub(super) fn collect(egress: &Egress, handshake: &mut Handshake, bytes: Lease) -> Collected {
    let limits = egress.settings.head;
    if handshake.held.is_none() {
        match handshake.scanner.find_end(&bytes, &limits) {
            Ok(Some(end)) => return Collected::Whole { bytes, end },
            Ok(None) => {}
            Err(refusal) => return Collected::Refused(refusal),
        }
        let held = hold(egress, handshake, &bytes);
        return if held { Collected::Partly } else { Collected::Exhausted };
    }
    if !hold(egress, handshake, &bytes) {
        return Collected::Exhausted;
    }
    let filled = handshake.filled as usize;
    let Some(held) = &mut handshake.held else { return Collected::Exhausted };
    match handshake.scanner.find_end(&held[..filled], &limits) {
        Ok(Some(end)) => {
            held.truncate(filled);
            match handshake.held.take() {
                Some(bytes) => Collected::Whole { bytes, end },
                None => Collected::Exhausted,
            }
        }
        Ok(None) => Collected::Partly,
        Err(refusal) => Collected::Refused(refusal),
    }
}

/// Copies bytes behind those that are held already. Answers `false` without memory for them.
fn hold(egress: &Egress, handshake: &mut Handshake, bytes: &[u8]) -> bool {
    let pool = egress.pool();
    let used = handshake.filled as usize;
    let needed = used + bytes.len();
    let mut held = match handshake.held.take() {
        Some(held) => held,
        None => match pool.acquire(needed.max(HELD_BYTES), needed.max(HELD_BYTES)) {
            Some(held) => held,
            None => return false,
        },
    };
    if held.len() < needed && !pool.grow(&mut held, used, needed.next_power_of_two()) {
        return false;
    }
    held[used..needed].copy_from_slice(bytes);
    handshake.filled = u32::try_from(needed).expect("a head and one receive buffer");
    handshake.held = Some(held);
    true
}

/// Answers a head that is complete.
fn answer(
    cx: &mut Context<'_>,
    routes: &mut [Box<dyn Route>],
    paths: &Paths,
    entry: &mut Entry,
    bytes: Lease,
    end: usize,
) {
    let limits = cx.egress.settings.head;
    let head = match Head::parse(&bytes[..end], &limits) {
        Ok(head) => head,
        Err(refusal) => return reject(cx, entry, &refusal),
    };
    let head_only = head.method() == "HEAD";
    if !head.is_upgrade()
        && let Some((handler, params)) = paths.plain(head.path())
    {
        let request = request_of(cx, entry, &head, &bytes[..end], Some(params));
        let response = handler(cx.shard, &request);
        return respond(cx, entry, |out| response.write_to(out, head_only));
    }
    let Some((route, params)) = paths.websocket(head.path()) else {
        let response = Response::text(404, "nothing is served at this path");
        return refuse(cx, entry, &response, head_only);
    };
    let origins = cx.egress.settings.origins.clone();
    let checked = head.websocket().and_then(|websocket| {
        origins.check(&head)?;
        Ok(websocket)
    });
    let websocket = match checked {
        Ok(websocket) => websocket,
        Err(refusal) => return reject(cx, entry, &refusal),
    };
    entry.route = route;
    let request = request_of(cx, entry, &head, &bytes[..end], Some(params));
    let outcome = routes[usize::from(route)].upgrade(cx, entry, &request, &websocket);
    conclude(cx, routes, entry, bytes, end, outcome);
}

fn request_of<'a>(
    cx: &Context<'a>,
    entry: &Entry,
    head: &'a Head<'a>,
    bytes: &'a [u8],
    params: Option<Params<'a>>,
) -> Request<'a> {
    let id = SessionId { shard: cx.shard.index(), key: entry.key };
    Request::new(head, bytes, params.unwrap_or_default(), id, (cx.net, entry.socket))
}

/// Does what the handler decided.
fn conclude(
    cx: &mut Context<'_>,
    routes: &mut [Box<dyn Route>],
    entry: &mut Entry,
    mut bytes: Lease,
    end: usize,
    outcome: Outcome,
) {
    match outcome {
        Outcome::Accepted => {
            cx.shard.counters.opened += 1;
            bytes.advance(end);
            if !bytes.is_empty() {
                let route = &mut routes[usize::from(entry.route)];
                let rest = route.received(cx, entry, bytes, Share::ALL);
                debug_assert!(rest.is_none(), "it was to read all");
            }
        }
        Outcome::Refused(response) => refuse(cx, entry, &response, false),
        Outcome::Dropped => {}
        Outcome::Later => {
            // The deadline of the handshake goes on: the phase changes, its beginning does not.
            entry.phase = Phase::Deciding;
            let Protocol::Handshake(handshake) = &mut entry.protocol else { return };
            handshake.filled = 0;
            handshake.head_bytes = u32::try_from(end).expect("a head has fewer than 4 GiB");
            if !hold(cx.egress, handshake, &bytes) {
                entry.advance(Phase::Dead, cx.egress.now_ms);
            }
        }
    }
}

fn reject(cx: &mut Context<'_>, entry: &mut Entry, refusal: &Refusal) {
    cx.shard.counters.refused += 1;
    respond(cx, entry, |out| refusal.write_to(out));
}

pub(crate) fn refuse(
    cx: &mut Context<'_>,
    entry: &mut Entry,
    response: &Response,
    head_only: bool,
) {
    cx.shard.counters.refused += 1;
    respond(cx, entry, |out| response.write_to(out, head_only));
}

/// Sends a complete response and closes: after a refusal nobody knows what the peer's next bytes
/// were meant to be (RFC 9931).
fn respond(cx: &mut Context<'_>, entry: &mut Entry, write: impl FnOnce(&mut Vec<u8>)) {
    let mut out = std::mem::take(&mut cx.egress.scratch);
    out.clear();
    write(&mut out);
    cx.link(entry).send_raw(&out);
    cx.egress.scratch = out;
    linger(cx, entry);
}
