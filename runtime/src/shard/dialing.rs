//! From connecting to 101, as a client: one connection that has been asked for.
//!
//! Comes in: what happens to a socket that is being connected, and the bytes of the response. Goes
//! out: the request, then a session handed to its route, or the error that the attempt failed with.

use std::net::SocketAddr;
use std::rc::Rc;

use hioload_pools::Lease;
use hioload_protocol::http::client::{ResponseError, encode_key};

use super::Action;
use super::client::{ClientCall, Deflated};
use super::dial::Step;
use super::driver::Driver;
use super::entry::{Entry, Handshake, Phase, Protocol};
use super::handshake::{self, Collected};
use crate::reactor::Reactor;
use crate::ws::{ConnectError, Opened, Plan};

/// The state of a connection of ours that is not a session yet.
#[derive(Debug)]
pub(crate) struct Dialing {
    plan: Rc<Plan>,
    address: SocketAddr,
    /// `Sec-WebSocket-Key` of the request, once that was sent.
    key: Option<String>,
    response: Handshake,
    /// Why it failed: the first cause counts.
    error: Option<ConnectError>,
}

impl Dialing {
    pub(super) fn new(plan: Rc<Plan>, address: SocketAddr) -> Self {
        Self { plan, address, key: None, response: Handshake::default(), error: None }
    }

    pub(super) fn blame(&mut self, error: ConnectError) {
        self.error.get_or_insert(error);
    }
}

impl Entry {
    /// Ends a connection that is not open yet.
    pub(super) fn fail_dialing(&mut self, error: ConnectError, now_ms: u64) {
        if let Protocol::Dialing(dialing) = &mut self.protocol {
            dialing.blame(error);
        }
        if self.phase < Phase::Dead {
            self.advance(Phase::Dead, now_ms);
        }
    }

    /// The socket broke: notes why, if it is one of ours that is not open yet.
    pub(super) fn broke(&mut self, error: std::io::Error) {
        if let Protocol::Dialing(dialing) = &mut self.protocol {
            let address = dialing.address;
            dialing.blame(ConnectError::io(address, error));
        }
    }
}

impl<R: Reactor> Driver<R> {
    /// The TCP connection stands: the request goes out (RFC 6455 section 4.1).
    pub(super) fn connected(&mut self, entry: &mut Entry) {
        if entry.phase != Phase::Dialing {
            return;
        }
        let Protocol::Dialing(dialing) = &mut entry.protocol else { return };
        if dialing.plan.upgrade.is_none() {
            let generation = self.shard.dials.opened(entry, self.egress.now_ms);
            return self.open(entry, &Opened { subprotocol: None, generation }, None);
        }
        let key = encode_key(self.egress.secrets.bytes());
        let mut request = std::mem::take(&mut self.egress.scratch);
        request.clear();
        let written = dialing.plan.write_request(&key, &mut request);
        dialing.key = Some(key);
        let now_ms = self.egress.now_ms;
        match written {
            Ok(()) => {
                self.context().link(entry).send_raw(&request);
                if entry.phase == Phase::Dead {
                    let error = ConnectError::Full { problem: "no memory for the request" };
                    entry.fail_dialing(error, now_ms);
                }
            }
            Err(error) => entry.fail_dialing(error, now_ms),
        }
        self.egress.scratch = request;
        self.shard.dials.connected(entry.route);
    }

    /// Bytes of the response.
    pub(super) fn answered(&mut self, entry: &mut Entry, bytes: Lease) {
        let Protocol::Dialing(dialing) = &mut entry.protocol else { return };
        let now_ms = self.egress.now_ms;
        let collected = handshake::collect(&self.egress, &mut dialing.response, bytes);
        let (mut bytes, end) = match collected {
            Collected::Whole { bytes, end } => (bytes, end),
            Collected::Partly => return,
            Collected::Refused(refusal) => {
                return entry.fail_dialing(ResponseError::Malformed(refusal).into(), now_ms);
            }
            Collected::Exhausted => {
                let error = ConnectError::Full { problem: "no memory for the response" };
                return entry.fail_dialing(error, now_ms);
            }
        };
        let key = dialing.key.as_deref().unwrap_or_default();
        let limits = &self.egress.settings.head;
        match dialing.plan.check_response(key, &bytes[..end], limits) {
            Ok(accepted) => {
                let compression = dialing.plan.compression();
                let deflate = accepted.deflate.map(|agreed| (agreed, compression));
                let generation = self.shard.dials.opened(entry, now_ms);
                let opened = Opened { subprotocol: accepted.subprotocol, generation };
                self.open(entry, &opened, deflate);
                bytes.advance(end);
                if !bytes.is_empty() {
                    self.received(entry, bytes);
                }
            }
            Err(error) => entry.fail_dialing(error, now_ms),
        }
    }

    fn open(&mut self, entry: &mut Entry, opened: &Opened, deflate: Option<Deflated>) {
        let route = usize::from(entry.route);
        let Self { shard, egress, routes, reactor, .. } = self;
        let mut cx = super::route::Context { shard, egress, net: reactor };
        routes[route].client(&mut cx, ClientCall::Opened(entry, opened, deflate));
    }

    /// A connection of ours is dead: its client goes on from there, after this callback.
    pub(super) fn dial_over(&mut self, entry: &mut Entry) {
        let step = match &mut entry.protocol {
            Protocol::Dialing(dialing) => {
                let address = dialing.address;
                let error = dialing.error.take();
                Step::Failed {
                    error: error.unwrap_or(ConnectError::Dropped { address }),
                    connected: dialing.key.is_some(),
                }
            }
            // Whoever closed wants no other connection, also if its last was cut.
            _ => Step::Over { reason: entry.cause() },
        };
        if let Some(key) = self.shard.dials.over(entry.route, step) {
            self.shard.actions.push(Action::Dial(key));
        }
    }

    /// The handle of a client wants something.
    pub(super) fn woken(&mut self, entry: &mut Entry, client: crate::ws::ClientId) {
        let route = usize::from(entry.route);
        self.guarded(entry, |driver, entry| {
            let Self { shard, egress, routes, reactor, .. } = driver;
            let mut cx = super::route::Context { shard, egress, net: reactor };
            let open = entry.is_open().then_some(entry);
            routes[route].client(&mut cx, ClientCall::Woken(client, open));
        });
        self.settle_and_arm(entry);
    }
}
