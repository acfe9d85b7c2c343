//! WebSocket echo: messages of any size, fragments, pings, compression, clients that pipeline.

use std::collections::VecDeque;
use std::time::Duration;

use hioload::config::CompressionMode;
use hioload::testkit::Received;
use hioload::testkit::sim::{Act, Client, Rng, Sim, WebSocketWire};
use hioload::{Handler, Message, Request, Sent, Session, Shard, Upgrade};

use super::words;

/// The longest message: above the limit of a copy, and of what is received straight into place.
const MESSAGE_BYTES_MAX: usize = 48 << 10;

/// Serves the scenario.
pub(super) fn scenario(mut sim: Sim) -> Sim {
    let mut rng = sim.rng();
    let clients = rng.between(6, 16);
    let modes = [
        CompressionMode::Off,
        CompressionMode::NoContext,
        CompressionMode::SharedWindow,
        CompressionMode::DedicatedWindow,
    ];
    let mode = if rng.percent(60) { CompressionMode::Off } else { *rng.pick(&modes) };
    let buffer_bytes = 4096 << rng.below(3);
    let buffers = 4 << rng.below(4);
    sim.configure(|config| {
        config.websocket.compression = mode;
        config.websocket.compression_level = 1;
        config.websocket.compression_bytes_min = 16;
        config.memory.buffers = buffers;
        config.memory.buffer_bytes = buffer_bytes;
    })
    .websocket("/echo", |_shard| Echo)
    .clients("/echo", clients, move |_number| Talker::new(&mut rng))
}

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        if session.send(message) == Sent::Dropped {
            session.close(hioload::CloseCode::TRY_AGAIN, "no memory for the answer");
        }
    }
}

/// Says so many things, waits for their echoes, and leaves.
struct Talker {
    left: usize,
    /// How many echoes it waits for before it says more.
    pipelined: usize,
    size: usize,
    pause: Duration,
    waiting: VecDeque<Received>,
}

impl Talker {
    fn new(rng: &mut Rng) -> Self {
        Self {
            left: rng.between(30, 200),
            pipelined: rng.between(1, 12),
            size: rng.magnitude(MESSAGE_BYTES_MAX),
            pause: if rng.percent(70) {
                Duration::ZERO
            } else {
                rng.duration(Duration::from_secs(10))
            },
            waiting: VecDeque::new(),
        }
    }
}

impl Client for Talker {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        if self.left == 0 {
            return if self.waiting.is_empty() { Act::Close } else { Act::Wait };
        }
        if self.waiting.len() >= self.pipelined {
            return Act::Wait;
        }
        self.left -= 1;
        let len = wire.rng().magnitude(self.size);
        if wire.rng().percent(50) {
            let text = words(wire.rng(), len);
            wire.send_text(&text);
            self.waiting.push_back(Received::Text(text));
        } else {
            let mut bytes = vec![0; len];
            wire.rng().fill(&mut bytes);
            wire.send_binary(&bytes);
            self.waiting.push_back(Received::Binary(bytes));
        }
        Act::Again(self.pause)
    }

    fn received(&mut self, wire: &mut WebSocketWire<'_>, received: Received) {
        if matches!(received, Received::Text(_) | Received::Binary(_))
            && self.waiting.pop_front() != Some(received)
        {
            wire.fail("an echo is not what was said");
        }
    }
}
