//! What may go wrong in a simulated network, how often it does, and how often it did.
//!
//! Every knob is a thing that a real machine does seldom and that the contract of
//! [`Reactor`](crate::reactor::Reactor) allows. The chances of a run are drawn from its seed: most
//! knobs are off in most runs, so that one fault does not hide what another would show.

use std::fmt;

use super::Rng;

macro_rules! knobs {
    ($($(#[doc = $doc:literal])+ $knob:ident: $name:literal, up to $most:literal;)+) => {
        /// Something that may go wrong in a simulation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Knob {
            $($(#[doc = $doc])+ $knob,)+
        }

        impl Knob {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$knob,)+];

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$knob => $name,)+
                }
            }

            /// The most times in 65,536 that a seed lets it happen: what is fatal is rarer than
            /// what is only slow, or nothing would ever be finished.
            const fn most(self) -> u16 {
                match self {
                    $(Self::$knob => $most,)+
                }
            }
        }
    };
}

knobs! {
    /// A receive gives a part of what is there.
    PartialReceive: "partial receive", up to 40_000;
    /// A send is taken up to some byte; the rest is blocked for a while.
    PartialSend: "partial send", up to 40_000;
    /// A receive fails with an error of the system.
    ReceiveError: "receive error", up to 2_000;
    /// A send fails with an error of the system.
    SendError: "send error", up to 2_000;
    /// Completions of different sockets change places.
    Reorder: "reorder", up to 60_000;
    /// Bytes are on their way for a while.
    Delay: "delay", up to 40_000;
    /// The end of a socket is reported late.
    DelayedClose: "delayed close", up to 40_000;
    /// What was in flight is reported after a socket was closed.
    LateCompletion: "late completion", up to 40_000;
    /// There is no receive buffer just now (ENOBUFS).
    Starvation: "no buffer", up to 20_000;
    /// A wait reports a few completions only.
    ShortQueue: "short queue", up to 40_000;
    /// A subscription ends and must be made again (no `F_MORE`).
    SubscriptionEnds: "no more", up to 40_000;
    /// An accept fails (EMFILE and its kin).
    AcceptError: "accept error", up to 30_000;
    /// A connect is refused or takes long.
    ConnectError: "connect error", up to 16_000;
    /// The clock jumps ahead.
    ClockJump: "clock jump", up to 6_000;
    /// The network breaks a connection.
    Reset: "reset", up to 1_500;
    /// The window of a new connection is small.
    NarrowWindow: "narrow window", up to 40_000;
    /// A pool has no memory just now.
    NoMemory: "no memory", up to 3_000;
    /// A peer ends without a word of its protocol.
    PeerFin: "peer: FIN", up to 1_500;
    /// A peer sends FIN and reads on.
    PeerHalfClose: "peer: half close", up to 1_500;
    /// A peer reads nothing for a while.
    PeerStall: "peer: stall", up to 8_000;
    /// A peer is gone with a reset.
    PeerReset: "peer: reset", up to 1_500;
    /// A peer is gone without a word: it neither reads nor writes any more.
    PeerVanishes: "peer: vanishes", up to 1_000;
    /// A peer breaks the rules of its protocol.
    PeerGarbage: "peer: garbage", up to 1_500;
}

const COUNT: usize = Knob::ALL.len();

/// How often each [`Knob`] is turned.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults([u16; COUNT]);

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn none() -> Self {
        Self([0; COUNT])
    }

    /// Everything that only makes things slow, cut or late, often: nothing is lost, nobody ends.
    #[must_use]
    pub const fn benign() -> Self {
        const OFTEN: u16 = 16_000;
        Self::none()
            .with(Knob::PartialReceive, OFTEN)
            .with(Knob::PartialSend, OFTEN)
            .with(Knob::Reorder, OFTEN)
            .with(Knob::Delay, OFTEN)
            .with(Knob::DelayedClose, OFTEN)
            .with(Knob::LateCompletion, OFTEN)
            .with(Knob::Starvation, OFTEN)
            .with(Knob::ShortQueue, OFTEN)
            .with(Knob::SubscriptionEnds, OFTEN)
    }

    /// A mixture as a seed draws it: each knob is on in a third of all seeds, with a chance of
    /// its own; one seed in eight has none.
    #[must_use]
    pub fn swarm(rng: &mut Rng) -> Self {
        let mut faults = Self::none();
        let calm = rng.below(8) == 0;
        for knob in Knob::ALL {
            let (on, most) = (rng.below(3) == 0, usize::from(knob.most()));
            // As often rare as frequent.
            let some = most >> rng.below(4);
            let chance = rng.between(some / 8 + 1, some + 1) as u16;
            if on && !calm {
                *faults.at(*knob) = chance;
            }
        }
        faults
    }

    /// The same with this knob turned `times` in 65,536.
    #[must_use]
    pub const fn with(mut self, knob: Knob, times: u16) -> Self {
        self.0[knob as usize] = times;
        self
    }

    /// How many times in 65,536 a knob is turned.
    #[must_use]
    pub const fn chance(&self, knob: Knob) -> u16 {
        self.0[knob as usize]
    }

    fn at(&mut self, knob: Knob) -> &mut u16 {
        &mut self.0[knob as usize]
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = Knob::ALL.iter().filter(|knob| self.chance(**knob) > 0);
        f.debug_map().entries(on.map(|knob| (knob.name(), self.chance(*knob)))).finish()
    }
}

/// How often each knob was turned in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turned([u64; COUNT]);

impl Turned {
    pub(super) const fn count(&mut self, knob: Knob) {
        self.0[knob as usize] += 1;
    }

    /// How often this one was.
    #[must_use]
    pub const fn times(&self, knob: Knob) -> u64 {
        self.0[knob as usize]
    }
}

/// Errors of a receive, as Linux numbers them.
pub(super) const RECEIVE_ERRORS: &[i32] = &[5, 12, 104, 107, 110, 112, 113];
/// Errors of a send.
pub(super) const SEND_ERRORS: &[i32] = &[5, 12, 32, 100, 101, 104, 105, 110, 113];
/// Errors of an accept that are not about one connection.
pub(super) const ACCEPT_ERRORS: &[i32] = &[12, 23, 24, 105];
/// Errors of a connect.
pub(super) const CONNECT_ERRORS: &[i32] = &[99, 101, 110, 111, 113];
