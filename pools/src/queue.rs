//! A queue from any thread to one, without a bound: a ring that is allocated once, so that what
//! passes through it costs nothing, and a list for what is more than that. Beside it the flag of a
//! reader that is gone.

use std::fmt;

use crate::sync::{ArrayQueue, AtomicBool, Ordering, SegQueue, fence};

/// What many threads push and one pops.
///
/// # Examples
/// ```
/// use hioload_pools::Queue;
///
/// let queue = Queue::new(2);
/// (0..5).for_each(|number| queue.push(number));
/// assert!((0..5).all(|number| queue.pop() == Some(number)));
/// assert!(queue.is_empty());
/// ```
pub struct Queue<T> {
    ring: ArrayQueue<T>,
    more: SegQueue<T>,
}

impl<T> Queue<T> {
    /// With room for so many before anything is allocated.
    ///
    /// # Panics
    /// There is room for none.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { ring: ArrayQueue::new(room), more: SegQueue::new() }
    }

    /// What one thread pushes comes out in its order.
    pub fn push(&self, value: T) {
        // Behind what does not fit nothing goes into the ring: it would overtake that.
        let value = if self.more.is_empty() { self.ring.push(value) } else { Err(value) };
        if let Err(value) = value {
            self.more.push(value);
        }
    }

    /// For one thread alone, unless the order does not matter.
    pub fn pop(&self) -> Option<T> {
        let first = self.ring.pop();
        if first.is_some() || self.more.is_empty() {
            return first;
        }
        // Since that look somebody may have filled the ring and gone on in the list: what is in the
        // ring is older. Once the list was seen with something in it, and nobody else takes that
        // out, a ring that is empty has nothing older, however much is pushed meanwhile.
        self.ring.pop().or_else(|| self.more.pop())
    }

    /// Whether there is nothing in it at this moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.more.is_empty()
    }

    /// How much is in it at this moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len() + self.more.len()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Whether the reader of a queue is gone: what is pushed then is taken out by who pushed it, or by
/// the reader's last look. One of both sees it.
///
/// # Examples
/// ```
/// use hioload_pools::{Queue, Ended};
///
/// let (queue, ended) = (Queue::new(4), Ended::new());
/// queue.push("somebody waits for this");
/// if ended.seen_after_push() {
///     while queue.pop().is_some() {}
/// }
/// ended.set();
/// while queue.pop().is_some() {}
/// assert!(ended.is_set() && queue.is_empty());
/// ```
#[derive(Debug)]
pub struct Ended(AtomicBool);

impl Ended {
    /// Of a reader that is there.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// For the reader, before its last look.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// For who has pushed something: whether the reader is gone, and may not have seen it.
    #[must_use]
    pub fn seen_after_push(&self) -> bool {
        // Either this sees that the reader is gone, or its last look sees what was pushed.
        fence(Ordering::SeqCst);
        self.is_set()
    }
}

impl Default for Ended {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::Queue;

    #[test]
    fn what_is_more_than_the_ring_comes_out_in_order() {
        let queue = Queue::new(4);
        let mut next = 0;
        let mut out = Vec::new();
        for round in 0..20 {
            for _ in 0..round % 7 {
                queue.push(next);
                next += 1;
            }
            out.extend((0..3).filter_map(|_| queue.pop()));
        }
        assert_eq!(queue.len(), next - out.len());
        out.extend(std::iter::from_fn(|| queue.pop()));
        assert_eq!(out, (0..next).collect::<Vec<_>>());
        assert!(queue.is_empty());
    }

    /// The ring is filled and overflows while it is looked at, again and again.
    #[test]
    fn what_one_thread_pushes_stays_in_order_while_another_takes_it() {
        const ITEMS: usize = 200_000;
        let queue = Queue::new(2);
        // On a busy machine they seldom run at the same time.
        let end = Instant::now() + Duration::from_secs(5);
        let mut out = Vec::with_capacity(ITEMS);
        let pushed = thread::scope(|scope| {
            let pushing = scope.spawn(|| {
                let mut next = 0;
                while next < ITEMS && Instant::now() < end {
                    if queue.is_empty() {
                        (0..4).for_each(|more| queue.push(next + more));
                        next += 4;
                    }
                }
                next
            });
            while !pushing.is_finished() || !queue.is_empty() {
                out.extend(queue.pop());
            }
            pushing.join().unwrap()
        });
        assert_eq!(out.len(), pushed, "something is lost");
        let first = out.iter().enumerate().find(|(place, value)| place != *value);
        assert_eq!(first, None, "the first one out of its place");
    }
}
