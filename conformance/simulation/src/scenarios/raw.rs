//! Raw streams: whatever comes goes back, byte by byte.

use std::collections::VecDeque;
use std::time::Duration;

use hioload::testkit::sim::{Act, RawWire, Rng, Sim, Stream};
use hioload::{CloseCode, Message, RawHandler, Sent, Session, Shard};

pub(super) fn scenario(mut sim: Sim) -> Sim {
    let mut rng = sim.rng();
    let streams = rng.between(8, 20);
    sim.raw(|_shard| Mirror).streams(streams, move |_number| Gazer::new(&mut rng))
}

struct Mirror;

impl RawHandler for Mirror {
    type Session = ();

    fn accepted(&mut self, _: &mut Shard) {}

    fn received(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, bytes: Message) {
        if session.send(bytes) == Sent::Dropped {
            session.close(CloseCode::TRY_AGAIN, "");
        }
    }
}

struct Gazer {
    left: usize,
    size: usize,
    pause: Duration,
    waiting: VecDeque<u8>,
}

impl Gazer {
    fn new(rng: &mut Rng) -> Self {
        Self {
            left: rng.between(40, 200),
            size: rng.magnitude(3000),
            pause: rng.duration(Duration::from_secs(2)),
            waiting: VecDeque::new(),
        }
    }
}

impl Stream for Gazer {
    fn act(&mut self, wire: &mut RawWire<'_>) -> Act {
        if self.left == 0 {
            return if self.waiting.is_empty() { Act::Close } else { Act::Wait };
        }
        self.left -= 1;
        let mut bytes = vec![0; wire.rng().magnitude(self.size)];
        wire.rng().fill(&mut bytes);
        wire.send(&bytes);
        self.waiting.extend(bytes);
        Act::Again(self.pause)
    }

    fn received(&mut self, wire: &mut RawWire<'_>, bytes: &[u8]) {
        for byte in bytes {
            if self.waiting.pop_front() != Some(*byte) {
                return wire.fail("a byte came back that was not sent, or not yet");
            }
        }
    }
}
