//! What a steady state costs the epoll reactor: no allocation, and two calls for each echo.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // an allocator that counts
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use hioload::reactor::epoll::{Epoll, EpollConfig};
use hioload::reactor::{Completion, Connection, Event, Reactor, Receive, Socket, Token};
use hioload_pools::{Arena, ArenaConfig, BytePool};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: it is the system's allocator, and a count of this thread beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and it came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

struct Server {
    reactor: Epoll,
    arena: Arena,
    batch: Vec<Completion>,
    lines: Vec<(TcpStream, Socket)>,
}

impl Server {
    fn new(lines: usize) -> Self {
        let config = ArenaConfig { capacity_bytes: 32 << 20, ..ArenaConfig::default() };
        let arena = Arena::new(config).unwrap();
        let pool = arena.clone();
        let config = EpollConfig { buffers: 8, buffer_bytes: 16 << 10, sockets_max: 64, pool };
        let mut reactor = Epoll::new(config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut open = |number| {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.set_nodelay(true).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let socket = reactor.adopt(Connection::from(accepted), Token(number)).unwrap();
            reactor.receive(socket, Receive::Pool);
            (peer, socket)
        };
        let lines = (0..lines as u64).map(&mut open).collect();
        Self { reactor, arena, batch: Vec::with_capacity(64), lines }
    }

    /// Every peer sends, and gets it back in the very buffer.
    fn echo(&mut self, len: usize) {
        let bytes = [7; 1024];
        for (peer, _) in &mut self.lines {
            peer.write_all(&bytes[..len]).unwrap();
        }
        let mut echoed = 0;
        while echoed < len * self.lines.len() {
            self.reactor.wait(TIMEOUT, &mut self.batch).unwrap();
            for Completion { token, event } in self.batch.drain(..) {
                let Event::Received(lease) = event else { panic!("{event:?}") };
                echoed += lease.len();
                let (_, socket) = self.lines[token.0 as usize];
                self.reactor.send(socket, [lease.freeze()]);
            }
        }
        let mut answer = [0; 1024];
        for (peer, _) in &mut self.lines {
            peer.read_exact(&mut answer[..len]).unwrap();
        }
    }

    /// A send that blocks, and is read until it is done.
    fn send_large(&mut self) {
        const LARGE: usize = 8 << 20;
        let (_, socket) = self.lines[0];
        let segment = self.arena.acquire(LARGE, LARGE).unwrap().freeze();
        self.reactor.send(socket, [segment]);
        self.reactor.wait(TIMEOUT, &mut self.batch).unwrap();
        assert!(matches!(self.batch[0].event, Event::SendBlocked(_)), "{:?}", self.batch);
        self.batch.clear();
        let (mut room, mut left, mut is_done) = ([0; 64 << 10], LARGE, false);
        while left > 0 {
            left -= self.lines[0].0.read(&mut room).unwrap();
            self.reactor.wait(Some(Duration::ZERO), &mut self.batch).unwrap();
            for completion in self.batch.drain(..) {
                is_done |= matches!(completion.event, Event::Sent { done: true, .. });
            }
        }
        assert!(is_done, "all was read, so all was sent");
    }
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn an_echo_is_one_receive_and_one_send() {
    let mut server = Server::new(10);
    let before = server.reactor.stats();
    for _ in 0..100 {
        server.echo(100);
    }
    let after = server.reactor.stats();
    assert_eq!(after.calls - before.calls, 100 * 10 * 2);
    assert!(after.waits - before.waits <= 100 * 10);
}

#[test]
fn a_connection_costs_one_more_call_from_adopt_to_close() {
    let mut server = Server::new(1);
    let (_, socket) = server.lines[0];
    server.echo(100);
    server.reactor.receive(socket, Receive::Paused);
    server.reactor.receive(socket, Receive::Pool);
    server.echo(100);
    server.reactor.close(socket);
    server.reactor.wait(TIMEOUT, &mut server.batch).unwrap();
    // One to watch it, two for each echo, and one to close it.
    assert_eq!(server.reactor.stats().calls, 1 + 2 * 2 + 1);
}

#[test]
fn nothing_is_allocated_once_it_is_warm() {
    let mut server = Server::new(10);
    for _ in 0..2 {
        server.echo(1000);
        server.send_large();
    }
    let before = allocations();
    for _ in 0..200 {
        server.echo(1000);
    }
    for _ in 0..3 {
        server.send_large();
    }
    assert_eq!(allocations() - before, 0);
}
