//! iproto: requests that are answered at once, later, by asking back, or not at all; notifies;
//! shutdowns of both sides.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hioload::Shard;
use hioload::iproto::{CallError, Closed, Handler, Peer, Reply, Request, Session};
use hioload::testkit::sim::{Act, Caller, IprotoWire, Rng, Sim};

/// Answers with the same body.
const ECHO: u32 = 1;
/// The same, after some time.
const LATER: u32 = 2;
/// Asks the peer the same, and answers with its answer.
const ASK_BACK: u32 = 3;
/// Forgets its reply: an error is the answer.
const FORGET: u32 = 4;
/// Answers by way of the orders of the shard, as another thread would.
const REMOTE: u32 = 5;
/// A notify that asks the server to shut the connection down.
const LEAVE: u32 = 10;
/// A notify that means nothing.
const WORDS: u32 = 11;
/// What the server asks a peer.
const ASKED_BACK: u32 = 1000;
/// What a forgotten request is answered with.
const ERROR: &[u8] = &[0xff; 4];

const BODY_BYTES_MAX: usize = 60 << 10;

pub(super) fn scenario(mut sim: Sim) -> Sim {
    let mut rng = sim.rng();
    let callers = rng.between(6, 16);
    let requests_max = if rng.percent(90) { 1000 } else { 8 };
    sim.configure(|config| {
        config.iproto.ping_interval_ms = 5000;
        config.iproto.requests_max = requests_max;
        // A response that comes after that is a request, on the wire, which no peer here has made:
        // one that stalls while the clock jumps answers later than the default.
        config.iproto.late_ms = 3_600_000;
    })
    .iproto(|_shard| Api { asked: BTreeMap::new(), next: 0 })
    .callers(callers, move |_number| Asker::new(&mut rng))
}

struct Api {
    /// Requests that wait for what the peer was asked.
    asked: BTreeMap<u64, (Reply, Vec<u8>)>,
    next: u64,
}

impl Handler for Api {
    /// Calls to the peer that have not ended.
    type Session = usize;

    fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<usize> {
        Some(0)
    }

    fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, usize>, request: Request) {
        let Request { msg, body, reply, .. } = request;
        match msg {
            ECHO => drop(session.reply(reply, body)),
            LATER => {
                let after = Duration::from_millis(shard.random() % 3000);
                let (sleep, handle) = (shard.sleep(after), shard.handle());
                let body = body.to_vec();
                let remote = reply.into_remote(shard);
                let answer = async move {
                    sleep.await;
                    // Wherever it is on its way, it may be that nobody wants it any more.
                    let _ = handle.run(|_| ());
                    remote.send(body);
                };
                shard.spawn(answer).detach();
            }
            ASK_BACK => {
                self.next += 1;
                let timeout = Some(Duration::from_secs(4));
                if session.call(ASKED_BACK, &body[..], timeout, self.next).is_ok() {
                    *session.data += 1;
                    self.asked.insert(self.next, (reply, body.to_vec()));
                }
            }
            REMOTE => reply.into_remote(shard).send(Bytes::copy_from_slice(&body)),
            _ => drop(reply),
        }
    }

    fn answered(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, usize>,
        token: u64,
        response: Result<hioload::iproto::Body, CallError>,
    ) {
        *session.data -= 1;
        let (reply, asked) = self.asked.remove(&token).expect("each call ends once");
        assert!(reply.session() == session.id(), "an answer came to another connection");
        if let Ok(body) = response {
            assert!(body[..] == asked[..], "the peer answered something else");
            reply.send(shard, &body[..]);
        }
    }

    fn notify(
        &mut self,
        _: &mut Shard,
        session: &mut Session<'_, usize>,
        msg: u32,
        _: hioload::iproto::Body,
    ) {
        if msg == LEAVE {
            session.shutdown();
        }
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, usize>, _: Closed) {
        assert!(*session.data == 0, "a connection is closed before its calls have ended");
    }
}

struct Asker {
    left: usize,
    pipelined: usize,
    size: usize,
    pause: Duration,
    next: u64,
    waiting: BTreeMap<u64, (u32, Vec<u8>)>,
}

impl Asker {
    fn new(rng: &mut Rng) -> Self {
        Self {
            left: rng.between(60, 360),
            pipelined: rng.between(1, 12),
            size: rng.magnitude(BODY_BYTES_MAX),
            pause: if rng.percent(70) {
                Duration::ZERO
            } else {
                rng.duration(Duration::from_secs(5))
            },
            next: 0,
            waiting: BTreeMap::new(),
        }
    }

    fn call(&mut self, wire: &mut IprotoWire<'_>, body: Vec<u8>) {
        let msg = *wire.rng().pick(&[ECHO, ECHO, ECHO, LATER, ASK_BACK, ASK_BACK, FORGET, REMOTE]);
        // Some of them give up before the answer is there.
        let timeout = if wire.rng().percent(10) { 20 } else { 60_000 };
        if wire.call(msg, &body, Duration::from_millis(timeout), self.next) {
            self.waiting.insert(self.next, (msg, body));
            self.next += 1;
        }
    }
}

impl Caller for Asker {
    fn act(&mut self, wire: &mut IprotoWire<'_>) -> Act {
        if self.left == 0 {
            return if self.waiting.is_empty() { Act::Close } else { Act::Wait };
        }
        if self.waiting.len() >= self.pipelined {
            return Act::Wait;
        }
        self.left -= 1;
        let mut body = vec![0; wire.rng().magnitude(self.size)];
        wire.rng().fill(&mut body);
        match wire.rng().below(100) {
            0 => drop(wire.notify(LEAVE, &[])),
            1..15 => drop(wire.notify(WORDS, &body)),
            // With calls of its own open: they are answered before it ends.
            15 => return Act::Close,
            _ => self.call(wire, body),
        }
        Act::Again(self.pause)
    }

    fn answered(&mut self, wire: &mut IprotoWire<'_>, token: u64, body: Option<&[u8]>) {
        let Some((msg, asked)) = self.waiting.remove(&token) else {
            return wire.fail("a call has ended twice");
        };
        let is_right = match body {
            None => true,
            Some(body) if msg == FORGET => body == ERROR,
            // Its own answer may not have come in time.
            Some(body) if msg == ASK_BACK && body == ERROR => true,
            Some(body) => body == asked,
        };
        if !is_right {
            wire.fail(&format!(
                "request {msg} of {} bytes was answered with something else",
                asked.len()
            ));
        }
    }

    fn asked(&mut self, wire: &mut IprotoWire<'_>, msg: u32, body: &[u8]) -> Option<Vec<u8>> {
        if msg != ASKED_BACK {
            wire.fail(&format!("it was asked {msg}, which nobody asks"));
        }
        (!wire.rng().percent(5)).then(|| body.to_vec())
    }

    fn ended(&mut self, wire: &mut IprotoWire<'_>, _: bool) {
        if !self.waiting.is_empty() {
            wire.fail("the connection is over and a call has not ended");
        }
    }
}
