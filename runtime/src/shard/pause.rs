//! Not reading from a peer for a while, because its handler wants no more for now.

use super::entry::Entry;
use super::link::Link;
use super::session::Session;

impl Link<'_> {
    pub(super) fn pause(&mut self) {
        if self.entry.is_open() {
            self.entry.flags.set_paused(true);
        }
    }

    pub(super) fn resume(&mut self) {
        if self.entry.flags.paused() {
            self.entry.flags.set_paused(false);
            self.entry.read_again(self.egress.now_ms);
        }
    }
}

impl<S> Session<'_, S> {
    /// Reads nothing more from the peer until [`resume`](Self::resume): the kernel keeps what it
    /// sends, and TCP slows it down. What is on its way through the reactor still arrives: its receive
    /// buffers at the most, or the rest of a large message that is being received in place. Neither the silence of the peer nor the age of its message counts in
    /// that time; nor are its pings answered. Reading begins again when the session closes.
    pub fn pause(&mut self) {
        self.link.pause();
    }

    /// Reads again after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.link.resume();
    }
}

impl Entry {
    /// Its timer fired while it was not read from: the clock of its silence stands still. (What
    /// judges the silence of a WebSocket peer knows by itself that it is held back.)
    pub(super) fn wait_on(&mut self, now_ms: u64) {
        let held_back = self.flags.held_back() && self.iproto().is_some();
        if self.flags.paused() || held_back {
            self.read_again(now_ms);
        }
    }
}
