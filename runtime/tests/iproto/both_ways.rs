//! Calls of our own on a connection that the peer opened.

use std::time::Duration;

use hioload::Shard;
use hioload::config::ReactorChoice;
use hioload::iproto::{Body, CallError, Closed, Handler, Peer as Who, Reply, Request, Session};
use rstest::rstest;

use crate::support::{Packet, Peer, Told, ask, next, record, start};

/// Answers each request with what the peer says to a question about it.
#[derive(Default)]
struct Curious(Vec<(u64, Reply)>);

impl Handler for Curious {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Who<'_>) -> Option<()> {
        Some(())
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        let token = u64::from(request.reply.sync());
        session.call(100, request.body, None, token).expect("the peer may be asked");
        self.0.push((token, request.reply));
    }

    fn answered(
        &mut self,
        shard: &mut Shard,
        _: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let at = self.0.iter().position(|(known, _)| *known == token).expect("it was asked");
        let (_, reply) = self.0.swap_remove(at);
        reply.send(shard, response.expect("the peer answers"));
    }
}

#[rstest]
fn a_handler_calls_back_on_the_same_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |_| Curious::default());
    let mut peer = Peer::connect(&server);
    // Both at once: neither waits for the other.
    peer.send(7, 11, b"first");
    peer.send(7, 12, b"second");
    let questions = [peer.read(), peer.read()];
    assert_eq!(questions[0], Packet { msg: 100, sync: 1, body: b"first".to_vec() });
    assert_eq!(questions[1], Packet { msg: 100, sync: 2, body: b"second".to_vec() });
    peer.send(100, 2, b"to the second");
    assert_eq!(peer.read(), Packet { msg: 7, sync: 12, body: b"to the second".to_vec() });
    peer.send(100, 1, b"to the first");
    assert_eq!(peer.read(), Packet { msg: 7, sync: 11, body: b"to the first".to_vec() });
    server.stop().unwrap();
}

#[rstest]
fn a_future_of_the_shard_waits_for_the_peer(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |shard: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            let (kept, dropped) =
                (session.ask(5, request.body, None, shard), session.ask(6, "?", None, shard));
            let reply = request.reply.into_remote(shard);
            shard
                .spawn(async move {
                    drop(dropped);
                    match kept.await {
                        Ok(body) => reply.send(body),
                        Err(error) => reply.send(error.to_string()),
                    }
                })
                .detach();
        },
    );
    let mut peer = Peer::connect(&server);
    peer.send(7, 1, b"ping");
    let (question, other) = (peer.read(), peer.read());
    assert_eq!((question.msg, &*question.body, other.msg), (5, &b"ping"[..], 6));
    // The response to the cancelled call is nobody's, and no request either.
    peer.send(6, other.sync, b"!");
    peer.send(5, question.sync, b"pong");
    assert_eq!(peer.read(), Packet { msg: 7, sync: 1, body: b"pong".to_vec() });
    // One that waits when the connection ends is told so.
    peer.send(7, 2, b"again");
    let _ = (peer.read(), peer.read());
    drop(peer);
    assert!(matches!(next(&told), Told::Closed(Closed::ByPeer | Closed::Lost)));
    server.stop().unwrap();
}

#[rstest]
fn a_call_ends_in_time_and_its_late_response_is_no_request(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            // The earliest there is, also for who gives no time at all.
            let short = Some(Duration::ZERO);
            if &*request.body == b"cancel" {
                let call = session.call(5, "?", short, 2).unwrap();
                assert!(session.cancel(call) && !session.cancel(call));
            } else {
                session.call(5, "?", short, 1).unwrap();
            }
            session.reply(request.reply, "asked");
        },
    );
    let mut peer = Peer::connect(&server);
    peer.send(7, 1, b"");
    let (question, answer) = (peer.read(), peer.read());
    assert_eq!(answer.body, b"asked");
    assert_eq!(next(&told), Told::Answered(1, Err(CallError::Timeout)));
    peer.send(5, question.sync, b"late");
    peer.send(7, 2, b"cancel");
    let (_, answer) = (peer.read(), peer.read());
    assert_eq!((answer.msg, answer.sync, &*answer.body), (7, 2, &b"asked"[..]));
    assert!(told.try_recv().is_err(), "a cancelled call has no end");
    server.stop().unwrap();
}

#[rstest]
fn calls_that_wait_at_the_end_are_told_of_it(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            for token in 1..=3 {
                session.call(5, "?", None, token).unwrap();
            }
            assert_eq!(session.pending(), 3);
            request.reply.discard();
        },
    );
    let mut peer = Peer::connect(&server);
    peer.send(7, 1, b"");
    for _ in 0..3 {
        peer.read();
    }
    drop(peer);
    let mut tokens: Vec<_> = (0..3)
        .map(|_| match next(&told) {
            Told::Answered(token, Err(CallError::Dropped)) => token,
            other => panic!("{other:?}"),
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2, 3]);
    assert!(matches!(next(&told), Told::Closed(_)));
    server.stop().unwrap();
}

#[rstest]
fn notifies_go_both_ways(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            session.notify(8, "news").unwrap();
            session.reply(request.reply, "told");
        },
    );
    let mut peer = Peer::connect(&server);
    let script: Vec<u8> = (0..10_000_u32)
        .flat_map(|msg| crate::support::packet(msg, 0, &msg.to_le_bytes()))
        .collect();
    peer.write(&script);
    for msg in 0..10_000_u32 {
        assert_eq!(next(&told), Told::Notify(msg, msg.to_le_bytes().to_vec()));
    }
    peer.send(1, 1, b"");
    assert_eq!(peer.read(), Packet { msg: 8, sync: 0, body: b"news".to_vec() });
    assert_eq!(peer.read(), Packet { msg: 1, sync: 1, body: b"told".to_vec() });
    assert_eq!(ask(&server, |shard| shard.stats().counters.messages), 10_001);
    server.stop().unwrap();
}

/// Two sides that stop reading until the other one reads would wait for ever.
#[rstest]
fn a_response_is_read_behind_requests_of_a_peer_that_does_not_read(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    const REQUESTS: u32 = 1000;
    let (server, told) = record(
        reactor,
        |_| {},
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            if request.msg == 1 {
                session.call(5, "?", Some(crate::support::PATIENCE), 1).unwrap();
            }
            session.reply(request.reply, request.body);
        },
    );
    let mut peer = Peer::connect(&server);
    peer.send(1, 1, b"ask me");
    let body = vec![7; 10_000];
    for sync in 2..2 + REQUESTS {
        peer.send(2, sync, &body);
    }
    peer.send(5, 1, b"the answer");
    assert_eq!(next(&told), Told::Answered(1, Ok(b"the answer".to_vec())));
    assert_eq!(peer.read(), Packet { msg: 5, sync: 1, body: b"?".to_vec() });
    assert_eq!(peer.read().body, b"ask me");
    for sync in 2..2 + REQUESTS {
        assert_eq!(peer.read(), Packet { msg: 2, sync, body: body.clone() });
    }
    server.stop().unwrap();
}
