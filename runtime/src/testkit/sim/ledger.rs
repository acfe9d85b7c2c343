//! What was sent, what was handled, and what does not fit together.
//!
//! Comes in: what peers sent, whole messages in their order, and each callback of each session.
//! Goes out: problems, as sentences. It knows no protocol: a message is a number made of its bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::shard::SessionId;

/// Problems that are kept: the first one is what counts.
const PROBLEMS_MAX: usize = 20;

/// Shared by the handlers and the peers of one run.
pub(super) type SharedLedger = Rc<RefCell<Ledger>>;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    sessions: BTreeMap<(u16, u64), SessionLog>,
    peers: Vec<PeerLog>,
    addresses: HashMap<SocketAddr, usize>,
    problems: Vec<String>,
}

#[derive(Debug, Default)]
struct SessionLog {
    peer: Option<usize>,
    opened: u32,
    closed: u32,
    handled: Vec<u64>,
    /// Of a raw connection: how many bytes, in how many pieces.
    bytes: usize,
    pieces: u64,
}

#[derive(Debug, Default)]
struct PeerLog {
    sent: Vec<u64>,
    /// What was sent without a protocol.
    bytes: Vec<u8>,
    /// The server has said that it read everything.
    is_confirmed: bool,
    sessions: u32,
}

/// A message as a number.
pub(super) fn digest(kind: u64, bytes: &[u8]) -> u64 {
    let mut sum = kind ^ 0x9e37_79b9_7f4a_7c15 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x2545_f491_4f6c_dd1d);
    }
    sum
}

impl Ledger {
    /// There is one more peer; which one it is.
    pub(super) fn add_peer(&mut self) -> usize {
        self.peers.push(PeerLog::default());
        self.peers.len() - 1
    }

    /// Notes the address of a peer: who has it speaks no HTTP in which it could name itself.
    pub(super) fn connected(&mut self, peer: usize, address: Option<SocketAddr>) {
        if let Some(address) = address {
            self.addresses.insert(address, peer);
        }
    }

    pub(super) fn peer_at(&self, address: Option<SocketAddr>) -> Option<usize> {
        self.addresses.get(&address?).copied()
    }

    /// A peer has begun to send a message.
    pub(super) fn sent(&mut self, peer: usize, message: u64) {
        self.peers[peer].sent.push(message);
    }

    /// A peer has begun to send bytes without a protocol.
    pub(super) fn sent_bytes(&mut self, peer: usize, bytes: &[u8]) {
        self.peers[peer].bytes.extend_from_slice(bytes);
    }

    /// A peer was told that all it sent was read.
    pub(super) fn confirmed(&mut self, peer: usize) {
        self.peers[peer].is_confirmed = true;
    }

    /// A session belongs to this peer.
    pub(super) fn belongs(&mut self, id: SessionId, peer: Option<usize>) {
        let log = self.sessions.entry(key(id)).or_default();
        if log.peer.is_none()
            && let Some(peer) = peer
            && let Some(record) = self.peers.get_mut(peer)
        {
            log.peer = Some(peer);
            record.sessions += 1;
            if record.sessions > 1 {
                self.problem(format!("peer {peer} connected once and has two sessions"));
            }
        }
    }

    /// Whether anything was said of a session.
    pub(super) fn is_known(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&key(id))
    }

    pub(super) fn is_open(&self, id: SessionId) -> bool {
        self.sessions.get(&key(id)).is_some_and(|log| log.opened > 0)
    }

    /// `is_open`: it can be used in this very call.
    pub(super) fn opened(&mut self, id: SessionId, is_open: bool) {
        let log = self.sessions.entry(key(id)).or_default();
        log.opened += 1;
        if log.opened > 1 {
            self.problem(format!("session {id} was opened twice"));
        } else if !is_open {
            self.problem(format!("session {id} was opened when it was over"));
        }
    }

    pub(super) fn handled(&mut self, id: SessionId, message: u64) {
        let log = self.sessions.entry(key(id)).or_default();
        log.handled.push(message);
        let at = log.handled.len() - 1;
        if log.opened == 0 || log.closed > 0 {
            return self.problem(format!("session {id} got a message while it was not open"));
        }
        // At once, so that a trace ends where it went wrong.
        if let Some(peer) = log.peer
            && self.peers[peer].sent.get(at) != Some(&message)
        {
            self.problem(format!(
                "message {at} of session {id} is not the one that peer {peer} sent as its {at}th"
            ));
        }
    }

    /// A piece of a raw stream came to its handler.
    pub(super) fn handled_bytes(&mut self, id: SessionId, bytes: &[u8]) {
        let log = self.sessions.entry(key(id)).or_default();
        let from = log.bytes;
        log.bytes += bytes.len();
        log.pieces += 1;
        if let Some(peer) = log.peer
            && self.peers[peer].bytes.get(from..from + bytes.len()) != Some(bytes)
        {
            self.problem(format!(
                "what session {id} got behind byte {from} is not what peer {peer} sent"
            ));
        }
    }

    pub(super) fn closed(&mut self, id: SessionId) {
        let log = self.sessions.entry(key(id)).or_default();
        log.closed += 1;
        if log.closed > 1 || log.opened == 0 {
            self.problem(format!("session {id} was closed twice, or without having been opened"));
        }
    }

    /// Something that must not be.
    pub(super) fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    /// The first thing that was found wrong.
    pub(super) fn first_problem(&self) -> Option<&str> {
        self.problems.first().map(String::as_str)
    }

    /// How many messages were handled.
    pub(super) fn messages(&self) -> u64 {
        self.sessions.values().map(|log| log.pieces + log.handled.len() as u64).sum()
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions.values().filter(|log| log.opened > 0).count() as u64
    }

    /// The run is over: everything that was opened is closed, and what was confirmed was handled.
    pub(super) fn check_end(&mut self) {
        let mut found = Vec::new();
        for ((shard, key), log) in &self.sessions {
            if log.opened > 0 && log.closed == 0 {
                found.push(format!("session {shard}:{key:x} was opened and never closed"));
            }
            let Some(peer) = log.peer else { continue };
            let (sent, handled) = (self.peers[peer].sent.len(), log.handled.len());
            if self.peers[peer].is_confirmed && handled != sent {
                found.push(format!(
                    "peer {peer} sent {sent} messages and was told that all were read, and \
                     session {shard}:{key:x} handled {handled} of them"
                ));
            }
        }
        found.into_iter().for_each(|problem| self.problem(problem));
    }
}

const fn key(id: SessionId) -> (u16, u64) {
    (id.shard(), id.key.to_u64())
}
