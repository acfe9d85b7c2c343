//! The load on one server: its connections, driven by one thread.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process;
use std::time::{Duration, Instant};

use hioload_benches::process::cpu_time;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::connection::{Connection, Counts, Known};
use crate::script::Script;

/// Longer than any server may take for what is under way at the end of a round.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// More than a read and the rest of a frame before it.
const ROOM_BYTES: usize = 256 * 1024;
/// How long one wait for events may be.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What one round showed of one server.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Messages that came back, per second.
    pub(crate) speed: f64,
    /// Processor time of the server per message, in microseconds.
    pub(crate) cpu: f64,
    /// How much of its core the server used.
    pub(crate) busy: f64,
    /// How much of theirs the clients used: when this is near 1, the speed is theirs.
    pub(crate) client_busy: f64,
    /// Payload bytes per reply on the wire.
    pub(crate) bytes: f64,
    /// How many of the replies were compared with what was sent.
    pub(crate) verified: f64,
}

pub(crate) struct Load<'a> {
    script: &'a Script,
    limit: usize,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<Event>,
    room: Vec<u8>,
    known: Known,
    counts: Counts,
}

impl<'a> Load<'a> {
    pub(crate) fn open(
        address: SocketAddr,
        script: &'a Script,
        connections: usize,
        limit: usize,
    ) -> Result<Self, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let opened = (0..connections).map(|number| {
            let connection = Connection::open(address, script, number)?;
            let data = EventData::new_u64(number as u64);
            epoll::add(&epoll, &connection.stream, data, EventFlags::IN)
                .map_err(|error| error.to_string())?;
            Ok(connection)
        });
        let connections = opened.collect::<Result<Vec<_>, String>>()?;
        let known = vec![Vec::new(); script.documents.len()];
        let events = Vec::with_capacity(connections.len());
        let counts = Counts::default();
        let room = vec![0; ROOM_BYTES];
        Ok(Self { script, limit, epoll, connections, events, room, known, counts })
    }

    /// One round: warms up, measures, and waits until nothing is under way.
    pub(crate) fn round(
        &mut self,
        server: u32,
        warm_up: Duration,
        measured: Duration,
    ) -> Result<Sample, String> {
        for number in 0..self.connections.len() {
            self.fill(number)?;
        }
        self.run_until(Instant::now() + warm_up)?;
        let counts = self.counts;
        let own = process::id();
        let (own_cpu, cpu) = (cpu_time(own)?, cpu_time(server)?);
        let start = Instant::now();
        self.run_until(start + measured)?;
        let elapsed = start.elapsed().as_secs_f64();
        let cpu = (cpu_time(server)? - cpu).as_secs_f64();
        let own_cpu = (cpu_time(own)? - own_cpu).as_secs_f64();
        let replies = (self.counts.replies - counts.replies) as f64;
        let bytes = (self.counts.payload_bytes - counts.payload_bytes) as f64;
        let verified = (self.counts.verified - counts.verified) as f64;
        self.drain()?;
        if replies == 0.0 {
            return Err("it sent no reply".to_owned());
        }
        if verified * 100.0 < replies {
            return Err("fewer than one reply in 100 could be verified".to_owned());
        }
        Ok(Sample {
            speed: replies / elapsed,
            cpu: cpu * 1e6 / replies,
            busy: cpu / elapsed,
            client_busy: own_cpu / elapsed,
            bytes: bytes / replies,
            verified: verified / replies,
        })
    }

    fn run_until(&mut self, end: Instant) -> Result<(), String> {
        while Instant::now() < end {
            self.turn(true)?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        let end = Instant::now() + DRAIN_TIMEOUT;
        while self.connections.iter().any(|connection| connection.in_flight > 0) {
            if Instant::now() > end {
                return Err(format!("it left messages unanswered for {DRAIN_TIMEOUT:?}"));
            }
            self.turn(false)?;
        }
        Ok(())
    }

    /// Handles what there is; sends a message for every one that came if `send`.
    fn turn(&mut self, send: bool) -> Result<(), String> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&WAIT)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        for index in 0..self.events.len() {
            let number = self.events[index].data.u64() as usize;
            let connection = &mut self.connections[number];
            connection.receive(self.script, &mut self.room, &mut self.known, &mut self.counts)?;
            if send || connection.stuck {
                self.fill(number)?;
            }
        }
        Ok(())
    }

    fn fill(&mut self, number: usize) -> Result<(), String> {
        let connection = &mut self.connections[number];
        let was_stuck = connection.stuck;
        connection.fill(self.script, self.limit)?;
        if connection.stuck != was_stuck {
            let more = if connection.stuck { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(number as u64);
            epoll::modify(&self.epoll, &connection.stream, data, EventFlags::IN | more)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
