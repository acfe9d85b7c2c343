//! Names to addresses, by the system's resolver, which blocks: on threads of its own.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::sys::affinity;

/// Threads that look up at the same time, in the whole process; what is beyond that waits. A
/// look-up that outlasts its connect timeout keeps its thread until the resolver gives up.
const THREADS_MAX: usize = 16;

type Answer = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

struct Question {
    host: String,
    port: u16,
    answer: Answer,
}

struct Desk {
    waiting: VecDeque<Question>,
    threads: usize,
}

static DESK: Mutex<Desk> = Mutex::new(Desk { waiting: VecDeque::new(), threads: 0 });

/// Looks up a name and calls `answer` with its addresses, on another thread.
pub(crate) fn look_up(
    host: &str,
    port: u16,
    answer: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static,
) {
    let question = Question { host: host.to_owned(), port, answer: Box::new(answer) };
    let mut desk = desk();
    desk.waiting.push_back(question);
    if desk.threads == THREADS_MAX {
        return;
    }
    let started = thread::Builder::new().name("hioload-resolve".to_owned()).spawn(work);
    match started {
        Ok(_) => desk.threads += 1,
        // Another thread takes it up, if there is one.
        Err(_) if desk.threads > 0 => {}
        Err(error) => {
            let question = desk.waiting.pop_back();
            drop(desk);
            if let Some(Question { answer, .. }) = question {
                answer(Err(error));
            }
        }
    }
}

fn desk() -> MutexGuard<'static, Desk> {
    DESK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks up until nobody waits.
fn work() {
    // It may have been started by a shard that is pinned.
    affinity::unpin();
    loop {
        let mut desk = desk();
        let Some(Question { host, port, answer }) = desk.waiting.pop_front() else {
            desk.threads -= 1;
            return;
        };
        drop(desk);
        answer((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
    }
}
