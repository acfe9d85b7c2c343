//! Names to addresses, by the system's resolver, which blocks: on threads of its own.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::sys::affinity;

/// Threads that look up at the same time, in the whole process; what is beyond that waits. A
/// look-up that outlasts its connect timeout keeps its thread until the resolver gives up.
const THREADS_MAX: usize = 16;

type Answer = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

/// Somebody waits for a look-up: if this is dropped before the look-up has begun, it never will.
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct Question {
    host: String,
    port: u16,
    answer: Answer,
    wanted: Arc<AtomicBool>,
}

impl Question {
    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

struct Desk {
    waiting: VecDeque<Question>,
    threads: usize,
    /// From so many questions on it is worth while to look for those that nobody wants any more.
    crowd: usize,
}

/// The least of [`Desk::crowd`].
const CROWD_MIN: usize = 64;

static DESK: Mutex<Desk> = Mutex::new(Desk::new());

impl Desk {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), threads: 0, crowd: CROWD_MIN }
    }

    /// There never are more than twice as many as are wanted, or a crowd.
    fn add(&mut self, question: Question) {
        if self.waiting.len() >= self.crowd {
            self.waiting.retain(Question::is_wanted);
            self.crowd = CROWD_MIN.max(2 * self.waiting.len());
        }
        self.waiting.push_back(question);
    }

    fn next(&mut self) -> Option<Question> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(Question::is_wanted)
    }
}

/// Looks up a name and calls `answer` with its addresses, on another thread, if they are wanted
/// still when one is free.
pub(crate) fn look_up(
    host: &str,
    port: u16,
    answer: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static,
) -> Wanted {
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let (host, answer) = (host.to_owned(), Box::new(answer));
    ask(Question { host, port, answer, wanted: Arc::clone(&wanted.0) });
    wanted
}

fn ask(question: Question) {
    let mut desk = desk();
    desk.add(question);
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
        let Some(Question { host, port, answer, .. }) = desk.next() else {
            desk.threads -= 1;
            return;
        };
        drop(desk);
        answer((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::{CROWD_MIN, Desk, Question, Wanted};

    fn add(desk: &mut Desk, port: u16) -> Wanted {
        let wanted = Arc::new(AtomicBool::new(true));
        let host = String::new();
        desk.add(Question { host, port, answer: Box::new(drop), wanted: Arc::clone(&wanted) });
        Wanted(wanted)
    }

    #[test]
    fn what_nobody_waits_for_is_not_looked_up_and_does_not_pile_up() {
        let mut desk = Desk::new();
        let wanted: Vec<_> = (0..100).map(|port| add(&mut desk, port)).collect();
        for _ in 0..100_000 {
            // One that timed out, of a client that tries again.
            drop(add(&mut desk, 9999));
            assert!(desk.waiting.len() <= CROWD_MIN.max(2 * wanted.len()));
        }
        let left: Vec<u16> = std::iter::from_fn(|| desk.next()).map(|left| left.port).collect();
        assert_eq!(left, (0..100).collect::<Vec<_>>());
    }
}
