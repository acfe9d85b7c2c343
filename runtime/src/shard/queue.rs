//! A queue from any thread to a shard, without a bound: a ring that is allocated once, so that what
//! passes through it costs nothing, and a list for what is more than that.

use crossbeam_queue::{ArrayQueue, SegQueue};

pub(super) struct Queue<T> {
    ring: ArrayQueue<T>,
    more: SegQueue<T>,
}

impl<T> Queue<T> {
    /// With room for so many before anything is allocated.
    pub(super) fn new(room: usize) -> Self {
        Self { ring: ArrayQueue::new(room), more: SegQueue::new() }
    }

    /// What one thread pushes comes out in its order.
    pub(super) fn push(&self, value: T) {
        // Behind what does not fit nothing goes into the ring: it would overtake that.
        let value = if self.more.is_empty() { self.ring.push(value) } else { Err(value) };
        if let Err(value) = value {
            self.more.push(value);
        }
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.ring.pop().or_else(|| self.more.pop())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.more.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len() + self.more.len()
    }
}

#[cfg(test)]
mod tests {
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
}
