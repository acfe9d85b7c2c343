//! What a shard still keeps for connections: for simulations, which know how many there are.

use hioload_pools::ObjectPool;

use super::turn::Turn;
use crate::reactor::Reactor;

impl<R: Reactor> Turn<R> {
    /// What is left of connections that are gone, by what it is: all zero once none is open. Of
    /// what is only kept to be used again, nothing counts.
    pub(crate) fn residue(&self) -> [(&'static str, usize); 9] {
        let driver = &self.driver;
        let egress = &driver.egress;
        [
            ("connections", self.entries.len()),
            ("timers", driver.wheel.len()),
            ("unfinished handshakes", driver.unfinished.len()),
            ("pongs that wait", egress.late_pongs.len()),
            ("segments that wait", egress.segments()),
            ("extras", egress.extras.len()),
            ("topics", egress.topics.borrow().len()),
            ("compression windows", egress.windows.len()),
            ("windows half read", usize::from(driver.rest.is_some())),
        ]
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.entries.len()
    }
}
