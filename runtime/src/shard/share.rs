//! How much of what arrived is read in one turn.
//!
//! All of it, but for one case: a long window of small messages that is all there is to do. Were it
//! read whole, its sender would wait for the first answer until the last message is read, and this
//! shard would wait in turn for whatever that answer leads to: two cores that work one after the
//! other. So the first half is answered while the second is read. Where others keep the shard busy
//! that is no gain, and costs a send.

/// From this many bytes on a window is long: some sixty small messages.
const LONG_BYTES_MIN: usize = 4096;
/// A larger message is worth a send of its own anyway, and what follows it may be received straight.
const SMALL_BYTES_MAX: usize = 1024;

/// What a route has to read of a window in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// This much may be left for the next turn.
    rest_max: usize,
}

impl Share {
    pub(crate) const ALL: Self = Self { rest_max: 0 };

    /// Half of a window of `len` bytes, if that is long.
    pub(crate) const fn half_of(len: usize) -> Self {
        Self { rest_max: if len >= LONG_BYTES_MIN { len / 2 } else { 0 } }
    }

    /// Whether the `rest` may be left, after a message that took `last` bytes.
    pub(crate) const fn may_leave(self, rest: usize, last: usize) -> bool {
        rest <= self.rest_max && last <= SMALL_BYTES_MAX && rest > 0
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::all(Share::ALL, 1, 62, false)]
    #[case::short(Share::half_of(4095), 1, 62, false)]
    #[case::first_half(Share::half_of(8000), 4001, 62, false)]
    #[case::second_half(Share::half_of(8000), 4000, 62, true)]
    #[case::large(Share::half_of(8000), 4000, 1025, false)]
    #[case::nothing_left(Share::half_of(8000), 0, 62, false)]
    fn the_second_half_of_a_long_window_may_wait(
        #[case] share: Share,
        #[case] rest: usize,
        #[case] last: usize,
        #[case] may: bool,
    ) {
        assert_eq!(share.may_leave(rest, last), may);
    }
}
