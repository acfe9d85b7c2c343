//! A simulated peer that speaks no protocol.

use super::{Act, Fate, Line, Speaker};
use crate::Time;
use crate::reactor::sim::Rng;

/// What a peer of a raw listener does.
pub trait Stream: 'static {
    /// It may say something. Called when the connection stands, after the time of [`Act::Again`],
    /// and when something arrived.
    fn act(&mut self, wire: &mut RawWire<'_>) -> Act;

    /// Bytes arrived.
    fn received(&mut self, wire: &mut RawWire<'_>, bytes: &[u8]);

    /// The connection is over; `clean` if the server ended it with a FIN.
    fn ended(&mut self, wire: &mut RawWire<'_>, clean: bool) {
        let _ = (wire, clean);
    }
}

/// The connection of a [`Stream`].
#[derive(Debug)]
pub struct RawWire<'a> {
    line: &'a mut Line,
}

impl RawWire<'_> {
    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.line.ledger.borrow_mut().sent_bytes(self.line.index, bytes);
        self.line.outgoing.extend(bytes);
    }

    /// The randomness of this peer.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.line.rng
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.line.now()
    }

    /// The run has failed, for this reason.
    pub fn fail(&mut self, why: &str) {
        self.line.problem(why);
    }
}

pub(in super::super) struct RawSpeaker(pub(in super::super) Box<dyn Stream>);

impl Speaker for RawSpeaker {
    fn connected(&mut self, line: &mut Line) {
        line.act_soon();
    }

    fn received(&mut self, line: &mut Line, bytes: &mut Vec<u8>) -> bool {
        if line.fate != Fate::Garbage {
            self.0.received(&mut RawWire { line }, bytes);
        }
        bytes.clear();
        true
    }

    fn act(&mut self, line: &mut Line) -> Act {
        self.0.act(&mut RawWire { line })
    }

    /// There are no rules to be broken.
    fn break_rules(&mut self, line: &mut Line) {
        line.finish();
    }

    fn close(&mut self, line: &mut Line) {
        line.finish();
    }

    fn poll(&mut self, _: &mut Line) -> Option<Time> {
        None
    }

    /// There is nothing but a FIN.
    fn was_told(&self) -> bool {
        true
    }

    fn ended(&mut self, line: &mut Line, clean: bool) {
        self.0.ended(&mut RawWire { line }, clean);
    }
}
