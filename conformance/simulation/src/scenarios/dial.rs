//! Connections of our own: each shard is a client of an echo server, and comes back after its end.

use std::time::Duration;

use hioload::testkit::Received;
use hioload::testkit::sim::{Act, Client, Knob, Sim, WebSocketWire};
use hioload::ws::{ClientHandler, Connect, Opened, Reconnect};
use hioload::{Handler, Message, Request, Session, Shard, Upgrade};

/// Where the first shard serves.
const URL: &str = "ws://127.0.0.1:80/echo";

pub(super) fn scenario(mut sim: Sim) -> Sim {
    let mut rng = sim.rng();
    let errors = rng.between(4000, 40_000) as u16;
    let most = rng.between(20, 200) as u32;
    sim.keeps_connections()
        .also(Knob::ConnectError, errors)
        .websocket("/echo", move |shard| {
            let again = Reconnect::default().first(Duration::from_millis(50)).attempts(20);
            shard.connect(Connect::to(URL).reconnect(again), Echoes { next: 0, most });
            Server
        })
        .clients("/echo", 10, |_number| Visitor(40))
}

struct Server;

impl Handler for Server {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

/// Says one number after the other on each connection, and closes it after so many.
struct Echoes {
    next: u32,
    most: u32,
}

impl ClientHandler for Echoes {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
        self.next = 0;
        session.send_binary(&0_u32.to_le_bytes());
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        assert!(message[..] == self.next.to_le_bytes(), "an echo is not what was said");
        self.next += 1;
        if self.next == self.most {
            return session.close(hioload::CloseCode::NORMAL, "enough");
        }
        session.send_binary(&self.next.to_le_bytes());
    }
}

/// Another client of the same server.
struct Visitor(usize);

impl Client for Visitor {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        if self.0 == 0 {
            return Act::Close;
        }
        self.0 -= 1;
        wire.send_text("is anybody there?");
        Act::Again(Duration::from_secs(1))
    }

    fn received(&mut self, wire: &mut WebSocketWire<'_>, received: Received) {
        if let Received::Text(text) = received
            && text != "is anybody there?"
        {
            wire.fail("an echo is not what was said");
        }
    }
}
