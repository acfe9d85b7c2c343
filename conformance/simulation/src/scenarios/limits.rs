//! Limits that are exact: messages and fragments at their bound are taken, and one more is not.

use std::time::Duration;

use hioload::testkit::Received;
use hioload::testkit::sim::{Act, Client, Rng, Sim, WebSocketWire};
use hioload::{CloseCode, Handler, Message, Request, Session, Shard, Upgrade};

pub(super) fn scenario(mut sim: Sim) -> Sim {
    let mut rng = sim.rng();
    let clients = rng.between(6, 16);
    let fragments_max = rng.between(2, 40) as u32;
    let message_bytes_max = rng.between(64, 20_000);
    sim.configure(|config| {
        config.websocket.fragments_max = fragments_max;
        config.websocket.overhead_budget_bytes = 1 << 24;
        config.websocket.message_age_ms_max = 0;
        config.websocket.message_bytes_max = message_bytes_max;
    })
    .websocket("/limits", |_shard| Taker)
    .clients("/limits", clients, move |_number| Tester {
        fragments_max: fragments_max as usize,
        message_bytes_max,
        left: rng.between(20, 120),
        waiting: None,
        expects: None,
        pause: rng.duration(Duration::from_secs(1)),
    })
}

struct Taker;

impl Handler for Taker {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        let len = message.len().to_string();
        if session.send_text(&len) == hioload::Sent::Dropped {
            session.close(CloseCode::TRY_AGAIN, "");
        }
    }
}

struct Tester {
    fragments_max: usize,
    message_bytes_max: usize,
    left: usize,
    /// The length of the message that is to be confirmed.
    waiting: Option<usize>,
    /// The code with which the next message is refused.
    expects: Option<CloseCode>,
    pause: Duration,
}

impl Tester {
    fn within(&mut self, rng: &mut Rng) -> (usize, usize) {
        let at_bound = rng.percent(40);
        let fragments =
            if at_bound { self.fragments_max } else { rng.between(1, self.fragments_max) };
        let len = if rng.percent(30) {
            self.message_bytes_max
        } else {
            rng.magnitude(self.message_bytes_max)
        };
        (fragments, len)
    }
}

impl Client for Tester {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        if self.waiting.is_some() || self.expects.is_some() {
            return Act::Wait;
        }
        if self.left == 0 {
            return Act::Close;
        }
        self.left -= 1;
        let (mut fragments, mut len) = self.within(&mut wire.rng().fork());
        if wire.rng().percent(2) {
            if wire.rng().percent(50) {
                fragments = self.fragments_max + 1;
                self.expects = Some(CloseCode::POLICY);
            } else {
                len = self.message_bytes_max + 1;
                (fragments, self.expects) = (1, Some(CloseCode::TOO_BIG));
            }
        } else {
            self.waiting = Some(len);
        }
        let refused = self.expects.is_some();
        wire.send_fragments(&vec![7; len], fragments, refused);
        Act::Again(self.pause)
    }

    fn received(&mut self, wire: &mut WebSocketWire<'_>, received: Received) {
        match received {
            Received::Text(len) => {
                let expected = self.waiting.take().map(|len| len.to_string());
                if expected.as_deref() != Some(&*len) {
                    wire.fail("what was taken is not what was sent");
                }
            }
            Received::Close { code, .. } => {
                let broken = [CloseCode::POLICY, CloseCode::TOO_BIG].map(Some);
                if broken.contains(&code) && code != self.expects {
                    wire.fail(&format!(
                        "it was closed with {code:?} instead of {:?}",
                        self.expects
                    ));
                }
            }
            _ => {}
        }
    }
}
