//! What a shard asks of the kernel while it echoes, seen by the kernel: its thread is traced with
//! ptrace from another process.

#![allow(unsafe_code)]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ptr::null_mut;

use hioload_protocol::ws::Opcode;
use rstest::rstest;

use common::{ServerProcess, be_server_if_asked, echo_len, open, push_frame};

/// The system calls of a thread, by number, between two moments.
type Calls = BTreeMap<i64, u64>;

/// A thread of another process that stops at each system call.
struct Traced {
    thread: i32,
}

impl Traced {
    fn seize(thread: i32) -> Self {
        let options = libc::PTRACE_O_TRACESYSGOOD;
        // SAFETY: takes two numbers; the thread is of a child of ours.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, null_mut::<u8>(), options) };
        assert_eq!(seized, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: takes a number.
        unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, null_mut::<u8>(), null_mut::<u8>()) };
        let traced = Self { thread };
        traced.wait();
        traced.resume(0);
        traced
    }

    fn resume(&self, signal: i32) {
        let (request, signal) = (libc::PTRACE_SYSCALL, signal as usize as *mut u8);
        // SAFETY: takes numbers; the thread is stopped.
        unsafe { libc::ptrace(request, self.thread, null_mut::<u8>(), signal) };
    }

    fn wait(&self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.thread, "{}", std::io::Error::last_os_error());
        status
    }

    /// Follows the thread until it makes the marked call: a `write` of the waker, which the
    /// caller provokes when the load is over. Counts all calls before.
    fn count_until(&self, over: &std::sync::atomic::AtomicBool) -> Calls {
        let mut calls = Calls::new();
        while !over.load(std::sync::atomic::Ordering::Acquire) {
            let status = self.wait();
            assert!(libc::WIFSTOPPED(status), "the server ended");
            let signal = libc::WSTOPSIG(status);
            if signal == libc::SIGTRAP | 0x80 {
                let mut info = [0u8; size_of::<libc::ptrace_syscall_info>()];
                // SAFETY: `info` has the size that is said and lives through the call.
                unsafe {
                    libc::ptrace(
                        libc::PTRACE_GET_SYSCALL_INFO,
                        self.thread,
                        info.len(),
                        info.as_mut_ptr(),
                    )
                };
                // ptrace(2): `op` is the first byte, the number of an entry is at 24.
                if info[0] == libc::PTRACE_SYSCALL_INFO_ENTRY {
                    let number = info[24..32].try_into().expect("eight bytes");
                    *calls.entry(i64::from_ne_bytes(number)).or_default() += 1;
                }
                self.resume(0);
            } else {
                let stop = status >> 16 != 0;
                self.resume(if stop { 0 } else { signal });
            }
        }
        calls
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // SAFETY: takes a number. The thread goes on by itself, or the server ends with us.
        unsafe {
            libc::ptrace(libc::PTRACE_INTERRUPT, self.thread, null_mut::<u8>(), null_mut::<u8>())
        };
        self.wait();
        // SAFETY: takes a number; the thread is stopped.
        unsafe {
            libc::ptrace(libc::PTRACE_DETACH, self.thread, null_mut::<u8>(), null_mut::<u8>())
        };
    }
}

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 200;

/// Each round one message of 20 bytes on each connection, all written before any echo is read.
fn load(streams: &[TcpStream], rounds: usize) {
    let mut frame = Vec::new();
    push_frame(&mut frame, true, Opcode::Text, 20);
    let mut echo = vec![0; echo_len(20)];
    for _ in 0..rounds {
        for mut stream in streams {
            stream.write_all(&frame).expect("the server reads");
        }
        for mut stream in streams {
            stream.read_exact(&mut echo).expect("the echo comes");
        }
    }
}

/// The calls of the first shard's thread and its turns, while it echoes.
fn traced(reactor: &str, shards: u16, test: &str) -> (Calls, u64, u64) {
    let server = ServerProcess::start(test, reactor, shards);
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| open(server.address)).collect();
    load(&streams, 20);
    let turns_before = server.number_at("/turns");
    let over = std::sync::atomic::AtomicBool::new(false);
    let thread = server.shard_threads()[0];
    let calls = std::thread::scope(|scope| {
        // ptrace knows its tracer by thread: the load runs on another one.
        scope.spawn(|| {
            load(&streams, ROUNDS);
            over.store(true, std::sync::atomic::Ordering::Release);
            // One more, so that the tracer, which waits for a call, looks at the flag.
            load(&streams, 1);
        });
        let traced = Traced::seize(thread);
        let calls = traced.count_until(&over);
        drop(traced);
        calls
    });
    let turns = server.number_at("/turns") - turns_before;
    drop(streams);
    server.stop();
    (calls, turns, (ROUNDS * CONNECTIONS) as u64)
}

#[test]
fn on_io_uring_a_turn_is_one_system_call() {
    be_server_if_asked();
    let (calls, turns, messages) = traced("uring", 1, "on_io_uring_a_turn_is_one_system_call");
    println!("uring: {calls:?} for {messages} messages in {turns} turns");
    let enters = calls.get(&libc::SYS_io_uring_enter).copied().unwrap_or(0);
    assert!(enters > 0 && enters <= turns, "{enters} io_uring_enter in {turns} turns");
    let others: Vec<_> =
        calls.keys().filter(|number| **number != libc::SYS_io_uring_enter).collect();
    assert!(others.is_empty(), "other system calls: {others:?}");
}

#[test]
fn on_epoll_a_message_is_one_receive_and_one_send() {
    be_server_if_asked();
    let (calls, turns, messages) =
        traced("epoll", 1, "on_epoll_a_message_is_one_receive_and_one_send");
    println!("epoll: {calls:?} for {messages} messages in {turns} turns");
    let count = |number| calls.get(&number).copied().unwrap_or(0);
    assert!(count(libc::SYS_epoll_wait) <= turns);
    // A turn may be under way when counting starts and ends.
    let slack = 2 * CONNECTIONS as u64;
    assert!(count(libc::SYS_recvfrom) <= messages + slack);
    assert!(count(libc::SYS_sendmsg) + count(libc::SYS_sendto) <= messages + slack);
    let known = [libc::SYS_epoll_wait, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_sendto];
    // The connection that asked for the turns may close after counting began: once, and in a debug
    // build the standard library looks at a descriptor with fcntl before it closes it.
    let last_close = |number| [libc::SYS_close, libc::SYS_fcntl].contains(&number);
    let others: Vec<_> = calls
        .iter()
        .filter(|(number, count)| !(known.contains(number) || last_close(**number) && **count == 1))
        .collect();
    assert!(others.is_empty(), "other system calls: {others:?}");
}

#[rstest]
#[case::uring("uring", "two_shards_under_load_never_wait_for_each_other::case_1_uring")]
#[case::epoll("epoll", "two_shards_under_load_never_wait_for_each_other::case_2_epoll")]
fn two_shards_under_load_never_wait_for_each_other(#[case] reactor: &str, #[case] name: &str) {
    be_server_if_asked();
    let (calls, ..) = traced(reactor, 2, name);
    println!("{reactor}: {calls:?}");
    assert!(!calls.is_empty(), "the first shard has had nothing to do");
    assert_eq!(calls.get(&libc::SYS_futex), None, "a lock was waited for");
}
