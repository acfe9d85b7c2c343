//! Futures that are polled on this thread when they are woken: no more than a measurement needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

/// Those that were woken since the thread looked.
struct Woken {
    list: Mutex<Vec<usize>>,
    thread: Thread,
}

impl Woken {
    fn swap(&self, list: &mut Vec<usize>) {
        std::mem::swap(list, &mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Bell {
    number: usize,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut list = self.woken.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(self.number);
        let first = list.len() == 1;
        drop(list);
        if first {
            self.woken.thread.unpark();
        }
    }
}

/// Runs futures until one of them ends.
pub(crate) fn run<T>(futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Option<T> {
    let mut futures = futures;
    let all = (0..futures.len()).collect();
    let woken = Arc::new(Woken { list: Mutex::new(all), thread: thread::current() });
    let bell = |number| Waker::from(Arc::new(Bell { number, woken: Arc::clone(&woken) }));
    let wakers: Vec<Waker> = (0..futures.len()).map(bell).collect();
    let mut list = Vec::new();
    loop {
        woken.swap(&mut list);
        if list.is_empty() {
            if futures.is_empty() {
                return None;
            }
            thread::park();
        }
        for number in list.drain(..) {
            let mut context = Context::from_waker(&wakers[number]);
            if let std::task::Poll::Ready(value) = futures[number].as_mut().poll(&mut context) {
                return Some(value);
            }
        }
    }
}
