//! Simulated peers: a connection from the other side, with a script and a fate.
//!
//! Comes in: what the script wants said, and what the server says. Goes out: bytes, and notes in
//! the ledger. What befalls a peer (it stalls, leaves, breaks the rules) is drawn by the network's
//! faults whenever it acts, so that no script has to think of it.

mod iproto;
mod raw;
mod websocket;

use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

pub(super) use self::iproto::IprotoSpeaker;
pub use self::iproto::{Caller, IprotoWire};
pub(super) use self::raw::RawSpeaker;
pub use self::raw::{RawWire, Stream};
pub(super) use self::websocket::WebSocketSpeaker;
pub use self::websocket::{Client, WebSocketWire};

use super::ledger::SharedLedger;
use crate::Time;
use crate::reactor::sim::{Knob, Net, Peer, Rng, trace};

/// Who waits longer than this for anything to happen has been forgotten by the server: longer than
/// every delay, and every timeout of a default configuration but that of idle sessions.
const PATIENCE: Duration = Duration::from_secs(90);
/// The longest time for which a peer reads nothing and then goes on.
const STALL_MAX: Duration = Duration::from_secs(45);
/// How long a peer that stays is given to be let in.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// How often a peer acts before the server has a turn, at the most.
const BURST_MAX: usize = 8;
/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// What a peer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It acts again after this time.
    Again(Duration),
    /// It acts again when something has arrived. If nothing comes for a minute and a half, although
    /// the connection stands, the run has failed: the server forgot it.
    Wait,
    /// It ends the connection, as its protocol wants it.
    Close,
}

/// What has befallen a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Honest,
    /// It has sent FIN and reads on.
    HalfClosed,
    /// It neither reads nor writes any more.
    Vanished,
    /// It has broken the rules.
    Garbage,
}

/// The speech of one protocol.
pub(super) trait Speaker {
    /// The connection stands.
    fn connected(&mut self, line: &mut Line);
    /// Bytes arrived: takes all of them. `false`: they only said that the server is still there.
    fn received(&mut self, line: &mut Line, bytes: &mut Vec<u8>) -> bool;
    /// Its script acts.
    fn act(&mut self, line: &mut Line) -> Act;
    /// Says what no peer may say.
    fn break_rules(&mut self, line: &mut Line);
    /// Ends the connection in order.
    fn close(&mut self, line: &mut Line);
    /// Does what its protocol does by the clock; answers when it has to again.
    fn poll(&mut self, line: &mut Line) -> Option<Time>;
    /// Whether the server has said that it ends, as the protocol wants it.
    fn was_told(&self) -> bool;
    /// The connection is over: `clean` if it ended with a FIN, and nothing befell this peer.
    fn ended(&mut self, line: &mut Line, clean: bool);
}

/// Something in the world that acts on its own.
pub(super) trait Actor {
    /// Does what there is to do at this moment; answers whether that was anything.
    fn step(&mut self) -> bool;
    /// When it acts next by itself.
    fn next(&self) -> Option<Time>;
    /// Whether nothing more will come of it.
    fn is_done(&self) -> bool;
    /// Whether it keeps its connection and does nothing with it any more.
    fn has_vanished(&self) -> bool;
    /// Time has passed in which nobody could act.
    fn jumped(&mut self);
    /// For reports: what it waits for.
    fn describe(&self) -> String;
}

/// One connection from the outside.
pub(super) struct Line {
    pub(super) index: usize,
    pub(super) net: Net,
    pub(super) ledger: SharedLedger,
    pub(super) rng: Rng,
    port: u16,
    start_at: Time,
    act_at: Option<Time>,
    poll_at: Option<Time>,
    stalled_until: Option<Time>,
    /// Since when it waits.
    waits_since: Time,
    /// Leases that were refused before it came.
    refused_before: u64,
    peer: Option<Peer>,
    pub(super) outgoing: VecDeque<u8>,
    pub(super) fate: Fate,
    /// It says nothing and stays until the server ends it.
    stays: bool,
    is_closing: bool,
    /// FIN follows what is still to be written.
    is_finishing: bool,
    is_over: bool,
    /// The server's FIN was read.
    has_ended: bool,
}

impl Line {
    pub(super) fn new(
        net: &Net,
        ledger: &SharedLedger,
        rng: Rng,
        port: u16,
        start_at: Time,
    ) -> Self {
        let index = ledger.borrow_mut().add_peer();
        Self {
            index,
            net: net.clone(),
            ledger: SharedLedger::clone(ledger),
            rng,
            port,
            start_at,
            act_at: None,
            poll_at: None,
            stalled_until: None,
            waits_since: start_at,
            refused_before: net.turned().times(Knob::NoMemory),
            peer: None,
            outgoing: VecDeque::new(),
            fate: Fate::Honest,
            stays: false,
            is_closing: false,
            is_finishing: false,
            is_over: false,
            has_ended: false,
        }
    }

    /// A peer that opens a connection, says nothing, and must be told when the server ends.
    pub(super) const fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    /// It stays, and the server has had the time to accept it: a listener that could not accept
    /// tries again each second.
    fn is_settled(&self) -> bool {
        self.stays && self.now() >= self.start_at.after(SETTLED_AFTER)
    }

    /// A pool had no memory since it came: what it waits for may have been dropped, and its
    /// connection with it.
    fn may_be_dropped(&self) -> bool {
        self.net.turned().times(Knob::NoMemory) > self.refused_before
    }

    pub(super) fn now(&self) -> Time {
        self.net.now()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now().as_millis()
    }

    pub(super) fn note(&self, what: &'static str, number: u64) {
        self.net.note(trace::peer(self.index), what, number);
    }

    pub(super) fn problem(&self, problem: &str) {
        let problem = format!("peer {}: {problem}", self.index);
        self.ledger.borrow_mut().problem(problem);
    }

    /// Acts at the next opportunity.
    pub(super) fn act_soon(&mut self) {
        if !self.is_closing && !self.stays {
            self.act_at = Some(self.now());
        }
    }

    /// Nothing more is said by the script.
    pub(super) fn stop_acting(&mut self) {
        self.is_closing = true;
        self.act_at = None;
    }

    /// Sends FIN behind all that was said, and reads on.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        self.stop_acting();
        self.flush_fin();
    }

    fn flush_fin(&mut self) {
        if self.is_finishing
            && self.outgoing.is_empty()
            && let Some(peer) = &mut self.peer
        {
            peer.shutdown();
        }
    }

    /// The connection is over; `Peer::drop` closes it.
    pub(super) fn end(&mut self) {
        self.note("is over", u64::from(self.has_ended));
        (self.peer, self.is_over, self.act_at, self.poll_at) = (None, true, None, None);
    }

    fn connect(&mut self) -> bool {
        let Ok(peer) = self.net.connect(self.port) else {
            self.end();
            return false;
        };
        self.ledger.borrow_mut().connected(self.index, peer.address());
        self.peer = Some(peer);
        self.waits_since = self.now();
        true
    }

    fn is_stalled(&self) -> bool {
        self.fate == Fate::Vanished || self.stalled_until.is_some_and(|until| until > self.now())
    }

    /// Writes as much as is taken; answers whether that was anything.
    fn write(&mut self) -> bool {
        let Some(peer) = &mut self.peer else { return false };
        let mut wrote = false;
        while !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            match peer.write(front) {
                Ok(count) => {
                    self.outgoing.drain(..count);
                    wrote |= count > 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    // Reading tells what there is left to be read, and then the same.
                    self.outgoing.clear();
                    break;
                }
            }
        }
        if wrote {
            self.flush_fin();
        }
        wrote
    }

    /// Reads once. `None`: there is nothing; `Some(false)`: it is broken.
    fn read(&mut self, into: &mut Vec<u8>) -> Option<bool> {
        let peer = self.peer.as_mut()?;
        let mut bytes = [0; READ_BYTES];
        match peer.read(&mut bytes) {
            Ok(0) => self.has_ended = true,
            Ok(count) => into.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(_) => return Some(false),
        }
        Some(true)
    }

    /// What may befall a peer that acts. `true`: it is no longer able to.
    fn suffer(&mut self) -> bool {
        if self.net.strikes(Knob::PeerStall) {
            self.stalled_until = Some(self.now().after(self.rng.duration(STALL_MAX)));
            self.note("stalls", 0);
        }
        if self.net.strikes(Knob::PeerVanishes) {
            self.fate = Fate::Vanished;
        } else if self.net.strikes(Knob::PeerReset) {
            if let Some(peer) = self.peer.take() {
                peer.reset();
            }
            self.end();
        } else if self.net.strikes(Knob::PeerFin) {
            self.end();
        } else if self.net.strikes(Knob::PeerHalfClose) {
            self.fate = Fate::HalfClosed;
            self.finish();
        } else {
            return false;
        }
        true
    }
}

/// A line and who speaks on it.
pub(super) struct Speaking<S> {
    line: Line,
    speaker: S,
    incoming: Vec<u8>,
}

impl<S: Speaker> Speaking<S> {
    pub(super) const fn new(line: Line, speaker: S) -> Self {
        Self { line, speaker, incoming: Vec::new() }
    }

    fn listen(&mut self) -> bool {
        let mut moved = false;
        while !self.line.is_over && !self.line.is_stalled() {
            match self.line.read(&mut self.incoming) {
                None => break,
                Some(true) if self.line.has_ended => {
                    self.over(true);
                    return true;
                }
                Some(true) => {
                    moved = true;
                    let now = self.line.now();
                    let progress = self.speaker.received(&mut self.line, &mut self.incoming);
                    if progress {
                        self.line.waits_since = now;
                        self.line.act_soon();
                    }
                }
                Some(false) => {
                    self.over(false);
                    return true;
                }
            }
        }
        moved
    }

    fn over(&mut self, clean: bool) {
        let clean = clean && self.line.fate == Fate::Honest;
        let told = clean && self.speaker.was_told();
        if self.line.stays && !told && !self.line.may_be_dropped() {
            self.line.problem("nothing was wrong, and it was not told that the server ends");
        }
        self.speaker.ended(&mut self.line, clean);
        self.line.end();
    }

    fn act(&mut self) {
        self.line.act_at = None;
        self.line.waits_since = self.line.now();
        if self.line.suffer() {
            return;
        }
        if self.line.net.strikes(Knob::PeerGarbage) {
            self.line.fate = Fate::Garbage;
            self.line.stop_acting();
            return self.speaker.break_rules(&mut self.line);
        }
        match self.speaker.act(&mut self.line) {
            Act::Again(after) => self.line.act_at = Some(self.line.now().after(after)),
            Act::Wait => {}
            Act::Close => {
                self.line.stop_acting();
                self.speaker.close(&mut self.line);
            }
        }
    }

    /// Nothing has happened for too long.
    fn lose_patience(&mut self) {
        if !self.line.may_be_dropped() {
            let waited = "has waited a minute and a half in vain: the server forgot it";
            self.line.problem(waited);
        }
        self.line.end();
    }

    fn patience_ends(&self) -> Option<Time> {
        let line = &self.line;
        let waits = !line.stays && !line.is_stalled() && line.act_at.is_none();
        waits.then(|| self.line.waits_since.after(PATIENCE))
    }
}

impl<S: Speaker> Actor for Speaking<S> {
    fn step(&mut self) -> bool {
        let now = self.line.now();
        if self.line.is_over || now < self.line.start_at {
            return false;
        }
        let mut moved = false;
        if self.line.peer.is_none() {
            if !self.line.connect() {
                return true;
            }
            self.speaker.connected(&mut self.line);
            moved = true;
        }
        if self.line.stalled_until.is_some_and(|until| until <= now) {
            self.line.stalled_until = None;
            self.line.waits_since = now;
            moved = true;
        }
        moved |= self.listen();
        if self.line.is_over || self.line.is_stalled() {
            return moved;
        }
        let most = self.line.rng.between(1, BURST_MAX);
        for _ in 0..most {
            if self.line.act_at.is_none_or(|at| at > now) || self.line.is_stalled() {
                break;
            }
            self.act();
            moved = true;
        }
        if !self.line.is_over {
            self.line.poll_at = self.speaker.poll(&mut self.line);
        }
        moved |= self.line.fate != Fate::Vanished && self.line.write();
        if !self.line.is_over && self.patience_ends().is_some_and(|at| at <= now) {
            self.lose_patience();
        }
        moved
    }

    fn next(&self) -> Option<Time> {
        let line = &self.line;
        if line.is_over || line.fate == Fate::Vanished {
            return None;
        }
        if line.peer.is_none() {
            return Some(line.start_at);
        }
        if line.stays && !line.is_settled() {
            return Some(line.start_at.after(SETTLED_AFTER));
        }
        if line.stalled_until.is_some() {
            return line.stalled_until;
        }
        [line.act_at, line.poll_at, self.patience_ends()].into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        self.line.is_over || self.line.is_settled() || self.line.fate == Fate::Vanished
    }

    fn has_vanished(&self) -> bool {
        !self.line.is_over && self.line.fate == Fate::Vanished
    }

    fn jumped(&mut self) {
        self.line.waits_since = self.line.now();
    }

    fn describe(&self) -> String {
        format!("peer {} ({:?})", self.line.index, self.line.fate)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("index", &self.index)
            .field("fate", &self.fate)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}
