//! Rooms over several shards: what is said is published on each, by way of their mailboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use hioload::testkit::Received;
use hioload::testkit::sim::{Act, Client, Rng, Sim, WebSocketWire};
use hioload::{Handler, Message, MessageKind, Request, Session, SessionId, Shard, Upgrade};

use super::words;

const ROOMS: usize = 3;
/// Asks the server for a word to whoever spoke last.
const WHISPER: &str = "whisper";

pub(super) fn scenario(mut sim: Sim) -> Sim {
    let mut rng = sim.rng();
    let clients = rng.between(5, 14);
    let subscriptions_max = rng.between(1, 4);
    sim.shards(3)
        .configure(|config| config.limits.subscriptions_max = subscriptions_max)
        .websocket("/chat", |_shard| Chat::default())
        .clients("/chat", clients, move |_number| Member::new(&mut rng))
}

#[derive(Default)]
struct Chat {
    /// Who spoke last, and under which name.
    last: Option<(SessionId, String)>,
}

impl Handler for Chat {
    type Session = Option<String>;

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<Self::Session> {
        Upgrade::accept(None)
    }

    fn message(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, Self::Session>,
        message: Message,
    ) {
        let Some(text) = message.text() else { return };
        if let Some(room) = text.strip_prefix("join ") {
            if let Some(old) = session.data.replace(room.to_owned()) {
                session.unsubscribe(&old);
            }
            let joined = session.subscribe(room);
            assert!(joined.is_ok(), "it is in no other room");
            return;
        }
        if text == WHISPER {
            if let Some((last, who)) = &self.last
                && let Some(word) = shard.message(MessageKind::Text, format!("to {who}").as_bytes())
            {
                shard.send_to(*last, word);
            }
            return;
        }
        let who = text.split(':').next().unwrap_or_default();
        self.last = Some((session.id(), who.to_owned()));
        let Some(room) = session.data.clone() else { return };
        for handle in shard.handles() {
            let (room, line) = (room.clone(), text.to_owned());
            // A full mailbox loses a line, and says so: the order of the others stays.
            let _ = handle.run(move |shard| {
                if let Some(message) = shard.message(MessageKind::Text, line.as_bytes()) {
                    shard.publish(&room, message);
                }
            });
        }
    }
}

struct Member {
    left: usize,
    said: usize,
    size: usize,
    room: Option<String>,
    pause: Duration,
    /// The last line that was heard of each member.
    heard: BTreeMap<String, usize>,
}

impl Member {
    fn new(rng: &mut Rng) -> Self {
        Self {
            left: rng.between(25, 120),
            said: 0,
            size: rng.magnitude(6000),
            room: None,
            pause: rng.duration(Duration::from_secs(2)),
            heard: BTreeMap::new(),
        }
    }
}

impl Client for Member {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        if self.left == 0 {
            return Act::Close;
        }
        self.left -= 1;
        if self.room.is_none() || wire.rng().percent(10) {
            let room = format!("room {}", wire.rng().below(ROOMS));
            wire.send_text(&format!("join {room}"));
            self.room = Some(room);
        } else if wire.rng().percent(15) {
            wire.send_text(WHISPER);
        } else {
            let room = self.room.clone().unwrap_or_default();
            let len = wire.rng().magnitude(self.size);
            let words = words(wire.rng(), len);
            self.said += 1;
            wire.send_text(&format!("{}:{}:{room}:{words}", wire.number(), self.said));
        }
        Act::Again(self.pause)
    }

    fn received(&mut self, wire: &mut WebSocketWire<'_>, received: Received) {
        let Received::Text(text) = received else { return };
        if let Some(who) = text.strip_prefix("to ") {
            // Names are never used again, and neither are those of sessions.
            if who != wire.number().to_string() {
                wire.fail("it heard a whisper for somebody who is gone");
            }
            return;
        }
        let mut parts = text.splitn(4, ':');
        let (who, number) = (parts.next().unwrap_or_default(), parts.next());
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
            return wire.fail("it heard something that nobody says");
        };
        let before = self.heard.insert(who.to_owned(), number).unwrap_or(0);
        if number <= before {
            wire.fail(&format!("it heard line {number} of {who} after line {before}"));
        }
    }
}
