//! What the sim reactor does with a socket that something happened to, and how sockets end.

use std::io;
use std::mem;
use std::time::Duration;

use hioload_pools::Shared;

use super::faults::{Knob, RECEIVE_ERRORS, SEND_ERRORS};
use super::wire::End;
use super::{CLOSE_DELAY_MAX, Due, Net, Phase, Place, SimReactor, take_lease};
use crate::reactor::batch::Batch;
use crate::reactor::{Event, Receive, Socket};

/// Connections that one listener accepts in one wait.
const ACCEPTS_MAX: usize = 64;
/// The longest time for which a socket is left alone although something could be done.
const PAUSE_MAX: Duration = Duration::from_millis(5);

impl SimReactor {
    pub(super) fn accept_some(&mut self, listener: Socket, port: u16, batch: &mut Batch<'_>) {
        for _ in 0..ACCEPTS_MAX {
            let Some(entry) = self.sockets.get_mut(listener) else { return };
            if matches!(entry.mode, Receive::Paused) {
                return;
            }
            if batch.is_full() {
                break;
            }
            self.stats.calls += 1;
            match self.net.state().accept(port) {
                Ok(Some(connection)) => batch.push(entry.token, Event::Accepted(connection)),
                Ok(None) => return,
                Err(error) => {
                    entry.mode = Receive::Paused;
                    batch.push(entry.token, Event::AcceptFailed(error));
                }
            }
        }
        self.again.push(listener);
    }

    pub(super) fn handle_stream(&mut self, socket: Socket, end: End, batch: &mut Batch<'_>) {
        self.resume_send(socket, end, batch);
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if entry.place.is_none() {
            return;
        }
        if batch.is_full() {
            self.again.push(socket);
        } else if entry.wants_bytes() {
            self.receive_some(socket, end, batch);
        } else {
            let error = self.net.state().error_of(end);
            if let Some(error) = error {
                self.fail(socket, error);
            }
        }
    }

    /// One receive: more comes with the next wait, after everybody else had a turn.
    fn receive_some(&mut self, socket: Socket, end: End, batch: &mut Batch<'_>) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let into = matches!(entry.mode, Receive::Into(_));
        if !into && self.net.strikes(Knob::Starvation) {
            self.stats.starved += 1;
            return self.look_later(socket);
        }
        if self.net.strikes(Knob::ReceiveError) {
            let errno = self.net.state().pick(RECEIVE_ERRORS);
            return self.fail(socket, io::Error::from_raw_os_error(errno));
        }
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let room = match &mut entry.mode {
            Receive::Into(lease) => Some(lease),
            Receive::Pool | Receive::Paused => self.buffers.tail(),
        };
        let Some(room) = room else {
            entry.is_starved = true;
            self.stats.starved += 1;
            self.starved.push_back(socket);
            return;
        };
        self.stats.calls += 1;
        let room = cut(&self.net, end, room);
        let answer = self.net.state().read(end, room);
        match answer {
            Ok(0) => {
                entry.has_ended = true;
                entry.mode = Receive::Paused;
                batch.push(entry.token, Event::Ended);
                self.again.push(socket);
            }
            Ok(filled) => {
                self.stats.received_bytes += filled as u64;
                let event = if matches!(entry.mode, Receive::Pool) {
                    Event::Received(self.buffers.lend(filled))
                } else {
                    let lease = take_lease(&mut entry.mode).expect("bytes were read into it");
                    Event::ReceivedInto { lease, filled }
                };
                batch.push(entry.token, event);
                let more = !self.net.strikes(Knob::SubscriptionEnds);
                self.received(socket, more);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(socket, error),
        }
    }

    /// After a receive: `more` says whether the subscription goes on by itself.
    fn received(&mut self, socket: Socket, more: bool) {
        if more {
            return self.again.push(socket);
        }
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.is_unsubscribed = true;
            self.unsubscribed.push(socket);
        }
    }

    /// Makes subscriptions again that have ended.
    pub(super) fn subscribe_again(&mut self) {
        for socket in self.unsubscribed.drain(..) {
            if let Some(entry) = self.sockets.get_mut(socket) {
                entry.is_unsubscribed = false;
                self.again.push(socket);
            }
        }
    }

    /// Looks at a socket again after a while, without anything having happened.
    fn look_later(&mut self, socket: Socket) {
        let owner = self.owner(socket);
        self.net.state().notify_later(owner, PAUSE_MAX);
    }

    /// What is in flight while a socket is closed is reported before its end.
    pub(super) fn catch_in_flight(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let event = match entry.place {
            Some(Place::Port(port)) => match self.net.state().accept(port) {
                Ok(Some(connection)) => Event::Accepted(connection),
                Ok(None) | Err(_) => return,
            },
            Some(Place::End(end)) => {
                let is_due = self.net.state().readable(end) > 0 && entry.wants_bytes();
                if !is_due || !matches!(entry.mode, Receive::Pool) {
                    return;
                }
                let Some(room) = self.buffers.tail() else { return };
                let Ok(filled) = self.net.state().read(end, room) else { return };
                self.stats.received_bytes += filled as u64;
                Event::Received(self.buffers.lend(filled))
            }
            None => return,
        };
        self.due.push_back((socket, Due::InFlight(event)));
    }

    /// Receives for those that found no buffer, in their order, while there are buffers now.
    pub(super) fn feed_starved(&mut self, batch: &mut Batch<'_>) {
        while !batch.is_full() && self.buffers.tail().is_some() {
            let Some(socket) = self.starved.pop_front() else { return };
            let Some(entry) = self.sockets.get_mut(socket) else { continue };
            entry.is_starved = false;
            if let (true, Some(Place::End(end))) = (entry.wants_bytes(), entry.place) {
                self.receive_some(socket, end, batch);
            }
        }
    }

    pub(super) fn send_now(&mut self, socket: Socket, segments: impl Iterator<Item = Shared>) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let Some(Place::End(end)) = entry.place else { return };
        if entry.is_finishing || entry.phase != Phase::Open {
            return;
        }
        assert!(entry.blocked.is_empty(), "nothing is sent while a send is blocked");
        entry.blocked.extend(segments.filter(|segment| !segment.is_empty()));
        if self.net.strikes(Knob::SendError) {
            let errno = self.net.state().pick(SEND_ERRORS);
            return self.fail(socket, io::Error::from_raw_os_error(errno));
        }
        match self.flush(socket, end) {
            Ok(_) => {
                let Some(entry) = self.sockets.get(socket) else { return };
                if !entry.blocked.is_empty() {
                    let bytes = entry.blocked.iter().map(|segment| segment.len()).sum();
                    self.stats.sends_blocked += 1;
                    self.blocked_due.push((socket, bytes));
                }
            }
            Err(error) => self.fail(socket, error),
        }
    }

    fn resume_send(&mut self, socket: Socket, end: End, batch: &mut Batch<'_>) {
        let is_blocked = |reactor: &Self| {
            reactor.sockets.get(socket).is_some_and(|entry| !entry.blocked.is_empty())
        };
        if !is_blocked(self) {
            return;
        }
        match self.flush(socket, end) {
            Ok(bytes) => {
                let done = !is_blocked(self);
                let Some(entry) = self.sockets.get(socket) else { return };
                if bytes > 0 {
                    batch.push(entry.token, Event::Sent { bytes, done });
                }
                if done && entry.is_finishing {
                    self.net.state().shut_down(end);
                }
                if done {
                    self.release_if_sent(socket);
                }
            }
            Err(error) => self.fail(socket, error),
        }
    }

    /// Writes until all is taken or the window is full; answers how many bytes that were.
    fn flush(&mut self, socket: Socket, end: End) -> io::Result<usize> {
        let entry = self.sockets.get_mut(socket).expect("it has something to send");
        let mut taken = 0;
        let mut most = usize::MAX;
        if self.net.strikes(Knob::PartialSend) {
            let waiting = entry.blocked.iter().map(|segment| segment.len()).sum::<usize>();
            most = self.net.state().rng.magnitude(waiting);
        }
        while let Some(segment) = entry.blocked.front_mut() {
            let allowed = segment.len().min(most - taken);
            if allowed == 0 {
                self.look_later(socket);
                break;
            }
            self.stats.calls += 1;
            match self.net.state().write(end, &segment[..allowed]) {
                Ok(count) => {
                    taken += count;
                    segment.advance(count);
                    if segment.is_empty() {
                        entry.blocked.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.stats.sent_bytes += taken as u64;
        Ok(taken)
    }

    /// The socket is broken: gives back all that it held, and will say so.
    pub(super) fn fail(&mut self, socket: Socket, error: io::Error) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.phase = Phase::Failed;
        self.give_back(socket);
        self.due.push_back((socket, Due::Failed(error)));
    }

    /// Releases a socket of which that was asked, once nothing is to be sent any more.
    pub(super) fn release_if_sent(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get(socket) else { return };
        if entry.phase == Phase::Releasing && entry.blocked.is_empty() {
            self.end_soon(socket);
        }
    }

    /// Ends a socket that is closed or released now, or after a while.
    pub(super) fn end_soon(&mut self, socket: Socket) {
        if !self.net.strikes(Knob::DelayedClose) {
            return self.end(socket);
        }
        if let Some(entry) = self.sockets.get_mut(socket) {
            entry.is_ending = true;
            let owner = self.owner(socket);
            self.net.state().notify_later(owner, CLOSE_DELAY_MAX);
        }
    }

    /// What was closed is over, what was released belongs to nobody again.
    pub(super) fn end(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let due = match (entry.phase, entry.place) {
            (Phase::Closed, _) => Due::Closed,
            (Phase::Releasing, Some(Place::End(end))) => {
                entry.place = None;
                Due::Released(self.net.state().disown(end))
            }
            _ => return,
        };
        self.due.push_back((socket, due));
    }

    /// Receives nothing more for a socket, and gives back what that needs.
    pub(super) fn stop_receiving(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        drop(take_lease(&mut entry.mode));
        if mem::take(&mut entry.is_starved) {
            self.starved.retain(|starved| *starved != socket);
        }
        entry.is_unsubscribed = false;
    }

    /// Gives back all that a socket holds but its row in the table.
    pub(super) fn give_back(&mut self, socket: Socket) {
        self.stop_receiving(socket);
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.blocked = std::collections::VecDeque::new();
        let place = entry.place.take();
        self.stats.calls += 1;
        match place {
            Some(Place::Port(port)) => self.net.state().unlisten(port),
            Some(Place::End(end)) => self.net.state().close(end),
            None => {}
        }
    }
}

/// The part of the room that a receive is given.
fn cut<'a>(net: &Net, end: End, room: &'a mut [u8]) -> &'a mut [u8] {
    let there = net.state().readable(end).min(room.len());
    if there > 1 && net.strikes(Knob::PartialReceive) {
        let part = net.state().rng.magnitude(there - 1).max(1);
        return &mut room[..part];
    }
    room
}

impl super::Entry {
    const fn wants_bytes(&self) -> bool {
        !matches!(self.mode, Receive::Paused)
            && !self.has_ended
            && !self.is_starved
            && !self.is_unsubscribed
    }
}
