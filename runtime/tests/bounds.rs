//! Bounds that a peer or another thread runs into in virtual time: how long an end may take, and
//! how much may wait in a mailbox.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use hioload::config::Config;
use hioload::testkit::{Bench, Peer};
use hioload::{
    CloseCode, Handler, Message, MessageKind, Request, Session, SessionId, Shard, Upgrade,
};
use rstest::rstest;

const MIB: usize = 1 << 20;

/// Sends 32 KiB to whoever comes, and does what the query says.
struct Farewell(Rc<Cell<Option<SessionId>>>);

impl Handler for Farewell {
    type Session = bool;

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<bool> {
        Upgrade::accept(request.query() == Some("close"))
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, bool>) {
        self.0.set(Some(session.id()));
        session.send_binary(&[7; 32 * 1024]);
        if *session.data {
            session.close(CloseCode::NORMAL, "that is all");
        }
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, bool>, _: Message) {}
}

/// A bench, and a peer of it that has asked for a session.
fn asked(target: &str) -> (Bench, Peer, Rc<Cell<Option<SessionId>>>) {
    let mut config = Config::default();
    config.websocket.progress_timeout_ms = 1000;
    config.websocket.close_timeout_ms = 200;
    let last = Rc::new(Cell::new(None));
    let bench = Bench::with_config(&config, |_| Farewell(Rc::clone(&last))).route("/");
    bench.net().set_window(1024);
    let mut peer = bench.net().connect(80).expect("the bench listens");
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    peer.write_all(request.as_bytes()).expect("there is room for a request");
    bench.advance(Duration::ZERO);
    assert_eq!(bench.shard_stats().connections, 1);
    (bench, peer, last)
}

/// Each byte is progress, so no deadline that progress renews ever ends it.
#[rstest]
#[case::our_close("/?close", b"")]
#[case::a_violation("/", b"\x83\x80\0\0\0\0")]
#[case::its_close("/", b"\x88\x80\0\0\0\0")]
fn an_end_that_drips_is_over_in_time(#[case] target: &str, #[case] says: &[u8]) {
    let (bench, mut peer, _) = asked(target);
    peer.write_all(says).unwrap();
    bench.advance(Duration::ZERO);
    for _ in 0..14 {
        assert_eq!(peer.read(&mut [0]).unwrap_or_default(), 1, "there is more to come");
        bench.advance(Duration::from_millis(100));
    }
    assert_eq!(bench.shard_stats().connections, 0, "it drips on");
}

/// Whoever reads all of it in time gets all of it, and its close frame.
#[test]
fn an_end_that_is_read_is_not_cut_short() {
    let (bench, mut peer, _) = asked("/?close");
    let mut all = Vec::new();
    for _ in 0..9 {
        bench.advance(Duration::from_millis(100));
        for _ in 0..4 {
            let mut bytes = [0; 1024];
            let count = peer.read(&mut bytes).unwrap_or_default();
            all.extend_from_slice(&bytes[..count]);
            bench.advance(Duration::ZERO);
        }
    }
    assert!(all.len() > 32 * 1024);
    assert!(all.ends_with(b"that is all"), "{} bytes, without the close frame", all.len());
}

/// Letters were counted and their bytes were not: 4096 messages of any size could wait.
#[test]
fn a_mailbox_is_bounded_in_bytes() {
    let (bench, _peer, last) = asked("/");
    let (handle, id) = (bench.handle(), last.get().expect("the session is open"));
    let send = |bytes: usize| handle.send(id, MessageKind::Binary, vec![0; bytes].into());
    let taken = (0..100).take_while(|_| send(MIB).is_ok()).count();
    assert_eq!(taken, 16);
    assert!(send(1).is_err());
    assert!(handle.run(|_| {}).is_ok(), "what has no bytes still has room");
    bench.advance(Duration::ZERO);
    assert!(send(40 * MIB).is_ok(), "an empty one takes any message");
    assert!(send(1).is_err());
}
