//! Servers of iproto in virtual time: a handler for each code, and handlers that write little.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use hioload::Shard;
use hioload::iproto::{Handler, Mux, Peer, Request, Session};
use hioload::testkit::sim::{Act, Caller, Faults, IprotoWire, Sim};

type Answers = Rc<RefCell<Vec<String>>>;

/// Asks the peer something with each request, and looks at no answer.
struct BareServer;

impl Handler for BareServer {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, peer: &Peer<'_>) -> Option<()> {
        assert!(peer.local_address().is_some());
        let debug = format!("{peer:?}");
        debug.starts_with("Peer { address: Some(").then_some(())
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        session.set_timer(Duration::from_millis(1), 1).expect("it is the only one");
        session.call(1000, "?", None, 1).expect("the peer may be asked");
        session.reply(request.reply, "yes");
    }
}

#[test]
fn a_server_need_not_look_at_anything_but_requests() {
    let says = [(3, "hear this", false), (1, "", true), (1, "", true)];
    assert_eq!(answers(|_| BareServer, says), ["yes", "yes"]);
}

/// What the first peer of a server is answered.
fn answers<H: Handler, const N: usize>(
    factory: impl Fn(&mut Shard) -> H + 'static,
    says: [(u32, &'static str, bool); N],
) -> Vec<String> {
    let answers = Answers::default();
    let noting = Rc::clone(&answers);
    let sim = Sim::seed(1).shards(1).faults(Faults::none()).drains_last().iproto(factory);
    let sim = sim.callers(1, move |number| {
        // Of those that come after the first one nothing is to be known.
        let answers = if number == 0 { Rc::clone(&noting) } else { Answers::default() };
        Speaker { says: says.into(), answers }
    });
    sim.run().unwrap();
    answers.take()
}

/// Says one thing after the other, and leaves when all is answered.
struct Speaker {
    says: VecDeque<(u32, &'static str, bool)>,
    answers: Answers,
}

impl Caller for Speaker {
    fn act(&mut self, wire: &mut IprotoWire<'_>) -> Act {
        if wire.pending() > 0 {
            return Act::Wait;
        }
        match self.says.pop_front() {
            Some((msg, body, true)) => {
                wire.call(msg, body.as_bytes(), Duration::from_secs(10), 0);
                Act::Wait
            }
            Some((msg, body, false)) => {
                wire.notify(msg, body.as_bytes());
                Act::Again(Duration::ZERO)
            }
            None => Act::Close,
        }
    }

    fn answered(&mut self, _: &mut IprotoWire<'_>, _: u64, body: Option<&[u8]>) {
        let answer = body.map(String::from_utf8_lossy).unwrap_or_default();
        self.answers.borrow_mut().push(answer.into_owned());
    }

    fn asked(&mut self, _: &mut IprotoWire<'_>, _: u32, body: &[u8]) -> Option<Vec<u8>> {
        Some(body.to_vec())
    }
}

#[test]
fn a_mux_sends_each_code_its_way() {
    let mux = |_: &mut Shard| {
        let mux = Mux::with_sessions(|_, peer| peer.address().map(|_| 0_usize))
            .handle(1, |_, session, request| {
                let heard = session.data.to_string();
                session.reply(request.reply, heard);
            })
            .handle_notify(3, |_, session, _, body| *session.data += body.len())
            .default(|_, session, request| {
                session.reply(request.reply, format!("not {}", request.msg));
            })
            .default_notify(|_, session, msg, _| *session.data += 1000 * msg as usize);
        assert_eq!(format!("{mux:?}"), "Mux { requests: [1], notifies: [3], .. }");
        assert!(mux.handles(1) && !mux.handles(2));
        mux
    };
    let says = [(3, "four", false), (4, "", false), (1, "", true), (2, "", true)];
    assert_eq!(answers(mux, says), ["4004", "not 2"]);
}
