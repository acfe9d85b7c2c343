//! Requests and their replies: whole, in any order, from anywhere, and never forgotten.

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use hioload::config::ReactorChoice;
use hioload::iproto::{Handler, Mux, Peer as Who, RemoteReply, Reply, Request, Session};
use hioload::{Running, Shard};
use rstest::rstest;

use crate::support::{PATIENCE, Packet, Peer, Told, ask, echo, next, packet, record, start};

const ERROR: [u8; 4] = [0xff; 4];

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + len) as u8).collect()
}

#[rstest]
fn every_size_comes_back(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let mut peer = Peer::connect(&server);
    let sizes = [0, 1, 11, 12, 13, 2047, 2048, 2049, 65_523, 65_524, 65_536, 70_000, 1 << 20];
    for (sync, len) in (1..).zip(sizes.into_iter().chain([5 << 20, 16 << 20])) {
        let mut stream = peer.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stream.write_all(&packet(42, sync, &body(len))).unwrap());
            let answer = peer.read();
            assert_eq!((answer.msg, answer.sync), (42, sync));
            assert!(answer.body == body(len), "a body of {len} bytes came back as another one");
        });
    }
    server.stop().unwrap();
}

#[rstest]
fn packets_may_be_cut_anywhere(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let mut peer = Peer::connect(&server);
    let script = [packet(1, 1, b"one"), packet(2, 2, b""), packet(3, 3, &body(40))].concat();
    for cut in 1..script.len() {
        peer.write(&script[..cut]);
        if cut >= 15 {
            // What is whole is answered before the rest has come.
            assert_eq!(peer.read(), Packet { msg: 1, sync: 1, body: b"one".to_vec() });
        }
        peer.write(&script[cut..]);
        if cut < 15 {
            assert_eq!(peer.read().body, b"one");
        }
        assert_eq!(peer.read(), Packet { msg: 2, sync: 2, body: Vec::new() });
        assert_eq!(peer.read(), Packet { msg: 3, sync: 3, body: body(40) });
    }
    server.stop().unwrap();
}

/// Keeps every reply until it is asked for them with code 0.
#[derive(Default)]
struct Keeper(Vec<(Reply, u32)>);

impl Handler for Keeper {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Who<'_>) -> Option<()> {
        Some(())
    }

    fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        let number = u32::from_le_bytes(request.body[..4].try_into().unwrap());
        if request.msg != 0 {
            return self.0.push((request.reply, number));
        }
        assert_eq!(session.requests() as usize, self.0.len() + 1);
        // The last one first, and some of them at once.
        for (reply, number) in self.0.drain(..).rev() {
            let answer = (number + 1).to_le_bytes();
            if number.is_multiple_of(3) {
                session.reply(reply, &answer);
            } else {
                reply.send(shard, &answer);
            }
        }
        session.reply(request.reply, "done");
    }
}

#[rstest]
fn a_thousand_requests_are_answered_in_any_order(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |_| Keeper::default());
    let mut peer = Peer::connect(&server);
    let mut script: Vec<u8> =
        (1..=1000_u32).flat_map(|sync| packet(5, sync, &sync.to_le_bytes())).collect();
    script.extend(packet(0, 1001, &[0; 4]));
    peer.write(&script);
    let mut seen = vec![false; 1002];
    for _ in 0..1001 {
        let Packet { msg, sync, body } = peer.read();
        assert!(!std::mem::replace(&mut seen[sync as usize], true), "{sync} came twice");
        if msg == 5 {
            assert_eq!(body, (sync + 1).to_le_bytes());
        } else {
            assert_eq!((msg, sync, &*body), (0, 1001, &b"done"[..]));
        }
    }
    server.stop().unwrap();
}

#[rstest]
fn replies_come_from_other_threads(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    const THREADS: usize = 4;
    let (sender, requests) = mpsc::channel::<(RemoteReply, Bytes)>();
    let server = start(
        reactor,
        |_| {},
        move |_| {
            let sender = sender.clone();
            Mux::new().default(move |shard, _, request| {
                let body = request.body.to_bytes();
                sender.send((request.reply.into_remote(shard), body)).unwrap();
            })
        },
    );
    let mut peer = Peer::connect(&server);
    let script: Vec<u8> =
        (1..=1000).flat_map(|sync| packet(9, sync, &body(sync as usize))).collect();
    let reader = std::thread::spawn(move || {
        peer.write(&script);
        let mut seen = vec![false; 1001];
        for _ in 0..1000 {
            let answer = peer.read();
            assert!(answer.body == body(answer.sync as usize));
            assert!(!std::mem::replace(&mut seen[answer.sync as usize], true));
        }
    });
    let mut shares: Vec<Vec<_>> = (0..THREADS).map(|_| Vec::new()).collect();
    for number in 0..1000 {
        let request = requests.recv_timeout(PATIENCE).expect("every request arrives");
        shares[number % THREADS].push(request);
    }
    for share in shares {
        std::thread::spawn(move || share.into_iter().for_each(|(reply, body)| reply.send(body)));
    }
    reader.join().expect("every reply arrives once");
    server.stop().unwrap();
}

/// Answers 1 with nothing, and drops everything else: 2 at once, 3 later, 4 elsewhere, 5 in a
/// future; and 6 shall stay without an answer.
struct Dropper(Option<Reply>);

impl Handler for Dropper {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Who<'_>) -> Option<()> {
        Some(())
    }

    fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        let Request { msg, reply, .. } = request;
        match msg {
            1 => {
                drop(self.0.take());
                session.reply(reply, ());
            }
            3 => self.0 = Some(reply),
            4 => {
                let reply = reply.into_remote(shard);
                std::thread::spawn(move || drop(reply));
            }
            5 => {
                let sleep = shard.sleep(Duration::from_millis(1));
                shard
                    .spawn(async move {
                        sleep.await;
                        drop(reply);
                    })
                    .detach();
            }
            7 => reply.discard(),
            _ => {}
        }
    }

    fn unanswered(&mut self, _: &mut Shard, msg: u32) -> Option<Bytes> {
        (msg != 6).then(|| Bytes::from_static(&ERROR))
    }
}

#[rstest]
fn a_dropped_reply_answers_with_an_error(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |_| Dropper(None));
    let mut peer = Peer::connect(&server);
    for msg in [2, 4, 5] {
        assert_eq!(peer.call(msg, msg, b"x"), ERROR, "{msg}");
    }
    peer.send(3, 3, b"");
    peer.send(6, 6, b"");
    peer.send(7, 7, b"");
    peer.send(1, 1, b"");
    let mut answers = [peer.read(), peer.read()];
    answers.sort_by_key(|answer| answer.sync);
    assert_eq!(answers[0], Packet { msg: 1, sync: 1, body: Vec::new() });
    assert_eq!(answers[1], Packet { msg: 3, sync: 3, body: ERROR.to_vec() });
    let counters = ask(&server, |shard| shard.stats().counters);
    assert_eq!((counters.unanswered, counters.panics), (5, 0));
    server.stop().unwrap();
}

#[rstest]
fn replies_to_a_peer_that_left_harm_nobody(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (kept, replies) = mpsc::channel::<RemoteReply>();
    let (server, told) = record(
        reactor,
        |_| {},
        move |shard: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            if request.msg == 1 {
                kept.send(request.reply.into_remote(shard)).unwrap();
                session.close();
            } else {
                session.reply(request.reply, request.body);
            }
        },
    );
    let mut peer = Peer::connect(&server);
    peer.send(1, 1, b"");
    let reply = replies.recv_timeout(PATIENCE).unwrap();
    peer.read_to_end();
    assert_eq!(next(&told), Told::Closed(hioload::iproto::Closed::ByHandler));
    // Its place may be taken by another one, which must not get the reply.
    let mut other = Peer::connect(&server);
    assert_eq!(other.call(2, 1, b"mine"), b"mine");
    reply.send("too late");
    assert_eq!(other.call(2, 2, b"mine still"), b"mine still");
    server.stop().unwrap();
}

#[rstest]
fn a_peer_that_ends_its_side_gets_its_answers(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(
        reactor,
        |_| {},
        |_| {
            Mux::new().default(|shard, _, request| {
                let sleep = shard.sleep(Duration::from_millis(20));
                let Request { reply, body, .. } = request;
                let reply = reply.into_remote(shard);
                let body = body.to_bytes();
                shard
                    .spawn(async move {
                        sleep.await;
                        reply.send(body);
                    })
                    .detach();
            })
        },
    );
    let mut peer = Peer::connect(&server);
    peer.write(&[packet(8, 1, b"one"), packet(8, 2, b"two")].concat());
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let packets: Vec<_> = std::iter::from_fn(|| peer.try_read()).collect();
    let answers: Vec<_> = packets.iter().filter(|packet| packet.msg == 8).collect();
    assert_eq!(answers.iter().map(|packet| &*packet.body).collect::<Vec<_>>(), [b"one", b"two"]);
    server.stop().unwrap();
}

fn panics(server: &Running) -> u64 {
    ask(server, |shard| shard.stats().counters.panics)
}

#[rstest]
fn a_panic_costs_one_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            assert_ne!(&*request.body, b"panic", "as the test wishes");
            session.reply(request.reply, request.body);
        },
    );
    let (mut one, mut other) = (Peer::connect(&server), Peer::connect(&server));
    assert_eq!(one.call(1, 1, b"good"), b"good");
    one.send(1, 2, b"panic");
    one.read_to_end();
    assert_eq!(next(&told), Told::Closed(hioload::iproto::Closed::Panicked));
    assert_eq!(other.call(1, 1, b"still there"), b"still there");
    assert_eq!(panics(&server), 1);
    server.stop().unwrap();
}

#[rstest]
fn a_mux_finds_the_handler_of_a_code(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(
        reactor,
        |_| {},
        |_| {
            let mut said = Vec::new();
            let mux = Mux::with_sessions(|_, _| Some(0_u32))
                .handle(1, |_, session, request| {
                    *session.data += 1;
                    let count = *session.data;
                    session.reply(request.reply, &count.to_le_bytes());
                })
                .handle(2, |_, session, request| {
                    session.reply(request.reply, "two");
                })
                .handle_notify(3, |_, session, _, body| *session.data += body.len() as u32);
            said.push(mux.handles(1) && !mux.handles(9));
            assert_eq!(said, [true]);
            mux
        },
    );
    let (mut one, mut other) = (Peer::connect(&server), Peer::connect(&server));
    assert_eq!(one.call(1, 1, b""), 1_u32.to_le_bytes());
    assert_eq!(one.call(2, 2, b""), b"two");
    one.send(3, 0, b"four");
    one.send(4, 0, b"nobody hears this");
    assert_eq!(one.call(1, 3, b""), 6_u32.to_le_bytes());
    // Unknown codes are answered at once, and are counted.
    assert_eq!(other.call(77, 1, b"?"), ERROR);
    assert_eq!(other.call(1, 2, b""), 1_u32.to_le_bytes());
    let counters = ask(&server, |shard| shard.stats().counters);
    assert_eq!((counters.unknown, counters.unanswered), (2, 1));
    server.stop().unwrap();
}

#[rstest]
fn who_is_not_accepted_gets_nothing(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |_| Mux::<()>::with_sessions(|_, _| None));
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.try_read(), None);
    assert_eq!(ask(&server, |shard| shard.stats().counters.refused), 1);
    server.stop().unwrap();
}
