//! Backpressure: a server that has more to say than its peers read, and timers beside it.

use std::time::Duration;

use hioload::config::SlowReader;
use hioload::testkit::Received;
use hioload::testkit::sim::{Act, Client, Rng, Sim, WebSocketWire};
use hioload::{CloseCode, Handler, Message, Request, Sent, Session, Shard, Upgrade};

/// The only timers of a session: one that is to be called, and one that is always taken back.
const TELL: u64 = 1;
const NEVER: u64 = 2;

pub(super) fn scenario(mut sim: Sim) -> Sim {
    let mut rng = sim.rng();
    let clients = rng.between(8, 20);
    let policy =
        *rng.pick(&[SlowReader::Pause, SlowReader::Pause, SlowReader::Drop, SlowReader::Close]);
    let high = 512 << rng.below(6);
    sim.configure(|config| {
        config.websocket.slow_reader = policy;
        config.websocket.outbox_high_bytes = high;
        config.websocket.outbox_low_bytes = high / 4;
        config.websocket.progress_timeout_ms = 20_000;
        config.websocket.idle_timeout_ms = 60_000;
    })
    .websocket("/flow", |_shard| Flood)
    .clients("/flow", clients, move |_number| Drinker::new(&mut rng))
}

struct Flood;

/// What is still to be said.
#[derive(Default)]
struct Rest {
    next: u32,
    end: u32,
    size: usize,
    /// `drained` will be called for the rest.
    is_full: bool,
}

impl Flood {
    fn pour(session: &mut Session<'_, Rest>) {
        while session.data.next < session.data.end && !session.data.is_full {
            let number = session.data.next;
            let mut bytes = vec![number as u8; session.data.size.max(4)];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            match session.send_binary(&bytes) {
                Sent::Queued => session.data.next += 1,
                Sent::Full => {
                    session.data.next += 1;
                    session.data.is_full = true;
                }
                Sent::Dropped => return session.close(CloseCode::TRY_AGAIN, "dropped"),
            }
        }
    }
}

impl Handler for Flood {
    type Session = Rest;

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<Rest> {
        Upgrade::accept(Rest::default())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, Rest>) {
        session.set_timer(Duration::from_secs(5), NEVER).expect("it is the only one");
        assert!(session.cancel_timer(NEVER), "it was just set");
    }

    /// So many messages of this size.
    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, Rest>, message: Message) {
        let field =
            |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap_or_default());
        session.data.end += field(0);
        session.data.size = field(4) as usize;
        Self::pour(session);
        if message.len() > 8 {
            let _ = session.set_timer(Duration::from_millis(u64::from(field(4))), TELL);
        }
    }

    fn drained(&mut self, _: &mut Shard, session: &mut Session<'_, Rest>) {
        session.data.is_full = false;
        Self::pour(session);
    }

    fn timer(&mut self, _: &mut Shard, session: &mut Session<'_, Rest>, token: u64) {
        assert!(token == TELL, "a timer that was taken back is called");
        session.send_text("told");
    }
}

struct Drinker {
    left: usize,
    wanted: u32,
    got: u32,
    size: usize,
    pause: Duration,
}

impl Drinker {
    fn new(rng: &mut Rng) -> Self {
        Self {
            left: rng.between(15, 80),
            wanted: 0,
            got: 0,
            size: rng.magnitude(8000),
            pause: rng.duration(Duration::from_secs(3)),
        }
    }
}

impl Client for Drinker {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        if self.got < self.wanted {
            return Act::Wait;
        }
        if self.left == 0 {
            return Act::Close;
        }
        self.left -= 1;
        let (count, size) = (wire.rng().magnitude(120) as u32, wire.rng().magnitude(self.size));
        self.wanted += count;
        let mut bytes = [count.to_le_bytes(), (size as u32).to_le_bytes()].concat();
        if wire.rng().percent(30) {
            bytes.push(1);
        }
        wire.send_binary(&bytes);
        Act::Again(self.pause)
    }

    fn received(&mut self, wire: &mut WebSocketWire<'_>, received: Received) {
        let Received::Binary(bytes) = received else { return };
        let number = u32::from_le_bytes(bytes[..4].try_into().unwrap_or_default());
        if number != self.got || bytes[4..].iter().any(|byte| *byte != number as u8) {
            wire.fail(&format!("message {} is not the one that was to come", self.got));
        }
        self.got += 1;
    }
}
