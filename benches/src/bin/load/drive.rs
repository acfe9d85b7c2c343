//! The loop of a thread: waits until something is ready or due, and does it.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use hdrhistogram::Histogram;
use hioload_benches::process::pin;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::set_current_timer_slack;

use crate::connection::{Connection, Rooms};
use crate::opening::{Opening, Step};
use crate::reader::{Desk, Fault};
use crate::schedule::Schedule;
use crate::tally::{Tally, Trouble, histogram};
use crate::worker::{News, Run};

/// More than most reads bring.
const ROOM_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;
/// Handshakes under way at once, of all threads.
const OPENINGS_MAX: usize = 128;
/// Marks the events of those; the rest is the place among them.
const OPENING: u64 = 1 << 63;
/// How long one wait may be, so that an end is noticed.
const WAIT_NS_MAX: u64 = 20_000_000;
/// Shorter waits cost more than they save.
const WAIT_NS_MIN: u64 = 20_000;
/// How often it looks whether anything still moves.
const WATCH_NS: u64 = 50_000_000;
/// Time for the others to go too when a connection is lost, so that they are counted.
const LOSING_NS: u64 = 200_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Connections that are asked one by one when it does not sleep: with more, to ask the kernel which
/// of them are ready is cheaper.
const ASKED_MAX: usize = 2;

/// What makes a connection send.
pub(crate) enum Sending {
    Nothing,
    /// One message when it is open.
    Once,
    /// A reply.
    Closed {
        in_flight: usize,
    },
    /// Time.
    Open {
        window: usize,
        schedule: Schedule,
    },
}

pub(crate) struct Drive<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) thread: usize,
    pub(crate) connections: Vec<Connection>,
    pub(crate) sending: Sending,
    pub(crate) is_measured: bool,
    pub(crate) tally: Tally,
    /// Time spent asking for events in vain, when it does not sleep.
    pub(crate) idle_ns: u64,
    news: &'a Sender<News>,
    epoll: OwnedFd,
    events: Vec<Event>,
    openings: Vec<Option<Opening>>,
    /// Connections that were begun.
    begun: usize,
    opening_since: u64,
    desk: Desk<'a>,
    rooms: Rooms,
    /// The next message of the schedule.
    next: u64,
    /// Connections that have something to send.
    list: Vec<usize>,
    last_reply: u64,
    next_watch: u64,
    next_second: u64,
    second: Histogram<u64>,
    lost: Option<Lost>,
}

struct Lost {
    deadline: u64,
    reason: String,
}

impl<'a> Drive<'a> {
    pub(crate) fn new(
        run: &'a Run<'a>,
        thread: usize,
        news: &'a Sender<News>,
    ) -> Result<Self, String> {
        let plan = run.plan;
        if let Some(cpu) = plan.cpu {
            pin(cpu + thread)?;
        }
        // Waits end on time; without it they end up to 50 us later.
        set_current_timer_slack(NonZeroU64::new(1)).map_err(|error| error.to_string())?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let now = run.now();
        let openings = (OPENINGS_MAX / plan.threads).max(1);
        Ok(Self {
            run,
            thread,
            connections: Vec::new(),
            sending: Sending::Nothing,
            is_measured: false,
            tally: Tally::new(),
            idle_ns: 0,
            news,
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            openings: (0..openings).map(|_| None).collect(),
            begun: 0,
            opening_since: now,
            desk: Desk::new(&plan.script, plan.verify, plan.bytes_max),
            rooms: Rooms { input: vec![0; ROOM_BYTES], output: Vec::new() },
            next: 0,
            list: Vec::new(),
            last_reply: now,
            next_watch: now,
            next_second: now + SECOND_NS,
            second: histogram(),
            lost: None,
        })
    }

    pub(crate) fn into_tally(mut self) -> Tally {
        self.tally.connections = self.connections.len();
        self.tally
    }

    /// Opens this thread's share of connections, or of its first `limit`.
    pub(crate) fn open(&mut self, limit: usize) -> Result<(), Trouble> {
        let plan = self.run.plan;
        let all = plan.connections / plan.threads
            + usize::from(self.thread < plan.connections % plan.threads);
        let wanted = all.min(limit);
        while self.connections.len() < wanted && !self.run.is_over() {
            let now = self.run.now();
            let allowed = plan.ramp_up.map_or(wanted, |per_s| {
                let elapsed_s = (now - self.opening_since) as f64 / 1e9;
                wanted.min((per_s / plan.threads as f64 * elapsed_s) as usize + 1)
            });
            for place in 0..self.openings.len() {
                if self.begun < allowed && self.openings[place].is_none() {
                    self.begin_one(place, now)?;
                }
            }
            // With a ramp the next one is soon due.
            let wait = if plan.ramp_up.is_some() { 1_000_000 } else { WAIT_NS_MAX };
            self.turn(wait)?;
            self.watch(now)?;
        }
        self.last_reply = self.run.now();
        Ok(())
    }

    fn begin_one(&mut self, place: usize, now: u64) -> Result<(), Trouble> {
        let plan = self.run.plan;
        let number = (self.begun * plan.threads + self.thread) as u32;
        let opening = Opening::start(&plan.door, number, now).map_err(Trouble::Other)?;
        let data = EventData::new_u64(OPENING | place as u64);
        epoll::add(&self.epoll, &opening.fd, data, EventFlags::OUT).map_err(other)?;
        self.openings[place] = Some(opening);
        self.begun += 1;
        Ok(())
    }

    /// Goes on until that time of the run, or until the run is over.
    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), Trouble> {
        loop {
            let now = self.run.now();
            if now >= end || self.run.is_over() {
                return Ok(());
            }
            self.tick(now)?;
            let mut until = end;
            if let Sending::Open { schedule, .. } = &self.sending {
                until = until.min(schedule.due(self.next));
            }
            self.turn(until.saturating_sub(now).min(WAIT_NS_MAX))?;
            if now >= self.next_watch {
                self.watch(now)?;
            }
        }
    }

    /// Sends what all connections may send.
    pub(crate) fn send_all(&mut self) -> Result<(), Trouble> {
        (0..self.connections.len()).try_for_each(|index| self.send(index))
    }

    /// Sends what is due.
    #[inline]
    fn tick(&mut self, now: u64) -> Result<(), Trouble> {
        let Sending::Open { schedule, .. } = &self.sending else { return Ok(()) };
        while schedule.due(self.next) <= now {
            let index = schedule.connection(self.next);
            let connection = &mut self.connections[index];
            connection.due += 1;
            if !connection.listed {
                connection.listed = true;
                self.list.push(index);
            }
            self.next += 1;
        }
        while let Some(index) = self.list.pop() {
            self.connections[index].listed = false;
            if !self.connections[index].stuck {
                self.send(index)?;
            }
        }
        Ok(())
    }

    /// Waits for events, at most so long, and handles them.
    fn turn(&mut self, wait_ns: u64) -> Result<(), Trouble> {
        let spin = self.run.plan.spin;
        let asked = if spin { self.run.now() } else { 0 };
        if spin && self.begun <= ASKED_MAX && self.begun == self.connections.len() {
            return self.ask(asked);
        }
        let wait_ns = if spin || wait_ns < WAIT_NS_MIN { 0 } else { wait_ns };
        self.wait(wait_ns).map_err(other)?;
        if spin && self.events.is_empty() {
            self.idle_ns += self.run.now() - asked;
        }
        for place in 0..self.events.len() {
            let Event { data, flags, .. } = self.events[place];
            let data = data.u64();
            if data & OPENING == 0 {
                self.ready(data as usize, flags)?;
            } else {
                self.open_further((data & !OPENING) as usize)?;
            }
        }
        Ok(())
    }

    /// Takes what has come to each connection, without asking first whether something has.
    fn ask(&mut self, now: u64) -> Result<(), Trouble> {
        let replies = self.tally.replies;
        for index in 0..self.connections.len() {
            if !self.connections[index].is_lost {
                self.ready(index, EventFlags::IN | EventFlags::OUT)?;
            }
        }
        if self.tally.replies == replies {
            self.idle_ns += self.run.now() - now;
        }
        Ok(())
    }

    fn wait(&mut self, wait_ns: u64) -> Result<(), Errno> {
        self.events.clear();
        let mut wait = Timespec { tv_sec: 0, tv_nsec: wait_ns.cast_signed() };
        if wait_ns > 0 && matches!(self.sending, Sending::Open { .. }) {
            // epoll_wait counts in milliseconds.
            match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            wait.tv_nsec = 0;
        }
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A connection is ready.
    #[inline]
    fn ready(&mut self, index: usize, flags: EventFlags) -> Result<(), Trouble> {
        let connection = &mut self.connections[index];
        let before = connection.progress.received;
        let came = connection.receive(&mut self.desk, &mut self.rooms.input);
        self.received(index, before);
        match came {
            Ok(read) if self.is_measured => self.tally.bytes_in += read as u64,
            Ok(_) => {}
            Err(fault) => return self.fault(index, fault),
        }
        if self.connections[index].stuck && !flags.contains(EventFlags::OUT) {
            return Ok(());
        }
        self.send(index)
    }

    /// Counts the replies of a connection that had `before` of them.
    #[inline]
    fn received(&mut self, index: usize, before: u64) {
        let connection = &mut self.connections[index];
        let replies = connection.progress.received - before;
        if replies == 0 {
            return;
        }
        let now = self.run.now();
        self.last_reply = now;
        self.tally.replies += replies;
        // What an open loop had under way at the end counts as well, or a server that stands still
        // then would look fast.
        let is_recorded =
            self.is_measured || matches!(self.sending, Sending::Nothing) && self.tally.messages > 0;
        for _ in 0..replies {
            let due = connection.under_way.pop_front().expect("it was sent");
            let latency = now.saturating_sub(due);
            if is_recorded {
                self.tally.latency.saturating_record(latency);
            }
            if self.run.plan.live {
                self.second.saturating_record(latency);
            }
        }
        if self.is_measured {
            self.tally.messages += replies;
        }
    }

    /// Sends what a connection may send now.
    #[inline]
    fn send(&mut self, index: usize) -> Result<(), Trouble> {
        let connection = &mut self.connections[index];
        let under_way = connection.under_way.len();
        let count = match &self.sending {
            Sending::Nothing => 0,
            Sending::Once => u64::from(connection.progress.sent == 0),
            Sending::Closed { in_flight } => in_flight.saturating_sub(under_way) as u64,
            Sending::Open { window, .. } => (window.saturating_sub(under_way) as u64)
                .min(connection.due - connection.progress.sent),
        };
        if connection.is_lost || count == 0 && !connection.has_rest() {
            return Ok(());
        }
        let was_stuck = connection.stuck;
        let (desk, output) = (&self.desk, &mut self.rooms.output);
        let sent = match &self.sending {
            Sending::Open { schedule, .. } => {
                connection.send(desk, output, count, |message| schedule.due_on(index, message))
            }
            _ => {
                let now = self.run.now();
                connection.send(desk, output, count, |_| now)
            }
        };
        match sent {
            Ok(sent) if self.is_measured => self.tally.bytes_out += sent as u64,
            Ok(_) => {}
            Err(fault) => return self.fault(index, fault),
        }
        if connection.stuck != was_stuck {
            let more = if connection.stuck { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.fd, data, EventFlags::IN | more)
                .map_err(other)?;
        }
        Ok(())
    }

    fn open_further(&mut self, place: usize) -> Result<(), Trouble> {
        let Some(opening) = &mut self.openings[place] else { return Ok(()) };
        let door = &self.run.plan.door;
        match opening.step(door, &mut self.rooms.input).map_err(Trouble::Other)? {
            Step::Waiting => Ok(()),
            Step::Asked => {
                let data = EventData::new_u64(OPENING | place as u64);
                epoll::modify(&self.epoll, &opening.fd, data, EventFlags::IN).map_err(other)
            }
            Step::Open(rest) => {
                let opening = self.openings[place].take().expect("it was there");
                let mut connection = Connection::new(opening.fd, opening.number);
                let index = self.connections.len();
                let data = EventData::new_u64(index as u64);
                epoll::modify(&self.epoll, &connection.fd, data, EventFlags::IN).map_err(other)?;
                let read = connection.read(&rest, &mut self.desk);
                self.connections.push(connection);
                self.run.opened.fetch_add(1, Ordering::Relaxed);
                self.last_reply = self.run.now();
                read.or_else(|fault| self.fault(index, fault))?;
                self.send(index)
            }
        }
    }

    /// Something is wrong with a connection.
    #[cold]
    fn fault(&mut self, index: usize, fault: Fault) -> Result<(), Trouble> {
        let connection = &mut self.connections[index];
        let reason = match fault {
            Fault::Closed(reason) => reason,
            Fault::Wrong(text) => {
                let (url, number) = (&self.run.plan.door.target.url, connection.number + 1);
                return Err(Trouble::Other(format!("{url}, connection {number}: {text}")));
            }
        };
        if connection.is_lost {
            return Ok(());
        }
        connection.is_lost = true;
        connection.under_way.clear();
        self.tally.lost += 1;
        epoll::delete(&self.epoll, &connection.fd).map_err(other)?;
        let deadline = self.run.now() + LOSING_NS;
        self.lost.get_or_insert(Lost { deadline, reason });
        self.next_watch = 0;
        Ok(())
    }

    /// Looks whether the server is still there, and tells how it goes.
    fn watch(&mut self, now: u64) -> Result<(), Trouble> {
        self.next_watch = now + WATCH_NS;
        if let Some(lost) = &self.lost
            && (now >= lost.deadline || self.tally.lost == self.connections.len())
        {
            return Err(Trouble::Lost(lost.reason.clone()));
        }
        let timeout = self.run.plan.stall_timeout;
        let silent_since = now.saturating_sub(timeout.as_nanos() as u64);
        let address = self.run.plan.door.address;
        if self.openings.iter().flatten().any(|opening| opening.since < silent_since) {
            return Err(Trouble::Other(format!(
                "{address} did not answer a handshake for {timeout:?}"
            )));
        }
        if self.last_reply < silent_since && self.under_way() > 0 {
            return Err(Trouble::Other(format!(
                "{address} sent no reply for {timeout:?}, with {} messages under way on {} \
                 connections",
                self.under_way(),
                self.connections.len()
            )));
        }
        if self.run.plan.live && now >= self.next_second {
            self.next_second = now + SECOND_NS;
            let latency = std::mem::replace(&mut self.second, histogram());
            let _ = self.news.send(News::Second { latency, behind: self.behind(now) });
        }
        Ok(())
    }

    /// Messages that were sent and have no reply yet.
    pub(crate) fn under_way(&self) -> usize {
        self.connections.iter().map(|connection| connection.under_way.len()).sum()
    }

    /// How long the message that has waited longest to be sent is overdue.
    fn behind(&self, now: u64) -> Duration {
        let Sending::Open { schedule, .. } = &self.sending else { return Duration::ZERO };
        let waiting = self.connections.iter().enumerate();
        let oldest = waiting
            .filter(|(_, one)| one.due > one.progress.sent)
            .map(|(index, one)| schedule.due_on(index, one.progress.sent))
            .min();
        Duration::from_nanos(now.saturating_sub(oldest.unwrap_or(now)))
    }
}

fn other(error: Errno) -> Trouble {
    Trouble::Other(error.to_string())
}
