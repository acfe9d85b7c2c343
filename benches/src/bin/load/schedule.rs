//! The fixed schedule of an open loop: when each message of a thread is due.
//!
//! Message after message goes to connection after connection, at even distances, whatever the
//! server does: so a message that had to wait has waited, and its latency says so.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// In nanoseconds of the run.
    start: f64,
    interval: f64,
    connections: u64,
}

impl Schedule {
    /// The share of thread number `thread` out of `threads`, each with as many connections as its
    /// share of the messages is for.
    pub(crate) fn new(
        start: u64,
        messages_per_s: f64,
        thread: usize,
        threads: usize,
        connections: usize,
    ) -> Self {
        let between_all = 1e9 / messages_per_s;
        Self {
            start: start as f64 + between_all * thread as f64,
            interval: between_all * threads as f64,
            connections: connections as u64,
        }
    }

    /// When message number `index` of the thread is due, in nanoseconds of the run.
    #[inline]
    pub(crate) fn due(&self, index: u64) -> u64 {
        (self.start + self.interval * index as f64) as u64
    }

    /// When message number `message` of connection number `connection` of the thread is due.
    #[inline]
    pub(crate) fn due_on(&self, connection: usize, message: u64) -> u64 {
        self.due(message * self.connections + connection as u64)
    }

    /// Which connection of the thread message number `index` belongs to.
    #[inline]
    pub(crate) fn connection(&self, index: u64) -> usize {
        (index % self.connections) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn messages_are_due_at_even_distances() {
        let schedule = Schedule::new(1_000, 1e6, 0, 1, 3);
        assert_eq!([0, 1, 2, 10].map(|index| schedule.due(index)), [1_000, 2_000, 3_000, 11_000]);
        assert_eq!([0, 1, 2, 3].map(|index| schedule.connection(index)), [0, 1, 2, 0]);
        assert_eq!(schedule.due_on(1, 0), schedule.due(1));
        assert_eq!(schedule.due_on(2, 4), schedule.due(14));
    }

    #[test]
    fn threads_take_turns() {
        let both = [0, 1].map(|thread| Schedule::new(0, 1e6, thread, 2, 1));
        let due: Vec<u64> = (0..3).flat_map(|index| both.map(|one| one.due(index))).collect();
        assert_eq!(due, [0, 1_000, 2_000, 3_000, 4_000, 5_000]);
    }

    #[test]
    fn a_long_run_stays_on_time() {
        let schedule = Schedule::new(0, 3e5, 0, 1, 1);
        assert_eq!(schedule.due(3_600 * 300_000), 3_600_000_000_000);
    }
}
