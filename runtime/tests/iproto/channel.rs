//! Connections that we make: many callers on one of them, and how each call ends.

use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use hioload::config::{Config, ReactorChoice};
use hioload::iproto::{
    Body, CallError, Channel, ChannelCall, ClientHandler, Closed, Connect, ConnectError, Mux,
    Opened, PING, Reconnect, Request, SHUTDOWN, Session,
};
use hioload::ws::{Connector, block_on};
use hioload::{Running, Shard};
use rstest::rstest;

use crate::support::{
    PATIENCE, Packet, Peer, Told, address, ask, echo, next, packet, record, start,
};

pub(crate) fn connector(reactor: ReactorChoice, change: impl FnOnce(&mut Config)) -> Connector {
    let mut config = Config::default();
    config.server.reactor = reactor;
    config.memory.buffers = 16;
    config.websocket.close_timeout_ms = 100;
    // Most tests stop it under the eyes of peers that say nothing to that.
    config.iproto.shutdown_timeout_ms = 100;
    config.shutdown.drain_ms = 500;
    change(&mut config);
    Connector::start(config).expect("the shard starts")
}

fn open(connector: &Connector, server: &Running) -> Channel {
    let connect = Connect::to(address(server).to_string()).timeout(PATIENCE);
    block_on(connect.open_on(connector)).expect("the server accepts")
}

/// A server that is the test itself.
pub(crate) fn listen(
    connector: &Connector,
    connect: impl FnOnce(Connect) -> Connect,
) -> (TcpListener, Channel, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Connect::to(listener.local_addr().unwrap().to_string()).timeout(PATIENCE);
    let channel = block_on(connect(to).open_on(connector)).expect("the listener accepts");
    let peer = accept(&listener);
    (listener, channel, peer)
}

pub(crate) fn accept(listener: &TcpListener) -> Peer {
    let (stream, _): (TcpStream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Peer { stream }
}

#[rstest]
fn many_threads_call_on_one_channel(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let connector = connector(reactor, |_| {});
    let channel = open(&connector, &server);
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let channel = channel.clone();
            scope.spawn(move || {
                let body = |number: usize| vec![thread as u8; number * 40];
                let calls: Vec<_> =
                    (0..100).map(|number| channel.call(number as u32, body(number))).collect();
                // The last one first: each gets its own.
                for (number, call) in calls.into_iter().enumerate().rev() {
                    assert!(block_on(call).unwrap() == body(number));
                }
            });
        }
    });
    let big = vec![7; 3 << 20];
    assert!(channel.call_blocking(1, &big).unwrap() == big);
    assert_eq!(channel.stats().calls, 801);
    assert_eq!(block_on(channel.shutdown()), Closed::ByHandler);
    assert_eq!(channel.call_blocking(1, "more"), Err(CallError::Stopped));
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn a_call_times_out_or_is_cancelled(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |config| config.iproto.request_timeout_ms = 50);
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    assert_eq!(channel.call_blocking(7, "?"), Err(CallError::Timeout));
    let late = peer.read();
    assert_eq!((late.msg, late.sync, &*late.body), (7, 1, &b"?"[..]));
    let call = channel.call_within(PATIENCE, 8, "?");
    let cancelled = peer.read();
    drop(call);
    // Neither response is taken for another one's, nor for a request.
    let patient = channel.call_within(PATIENCE, 9, "?");
    let asked = peer.read();
    peer.send(7, late.sync, b"too late");
    peer.send(8, cancelled.sync, b"for nobody");
    peer.send(9, asked.sync, b"good");
    assert_eq!(block_on(patient).unwrap(), "good");
    let stats = channel.stats();
    assert_eq!((stats.calls, stats.calls_dropped, stats.late), (3, 2, 2));
    connector.stop().unwrap();
}

#[rstest]
fn a_call_that_is_dropped_before_the_shard_looks_is_not_sent(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let (free, held) = mpsc::channel();
    connector.handle().run(move |_| held.recv_timeout(PATIENCE).unwrap()).unwrap();
    drop(channel.call(1, "for nobody"));
    let call = channel.call(2, "?");
    free.send(()).unwrap();
    let asked = peer.read();
    assert_eq!((asked.msg, asked.sync), (2, 1));
    peer.send(2, 1, b"!");
    assert_eq!(block_on(call).unwrap(), "!");
    assert_eq!(channel.stats().calls, 1);
    connector.stop().unwrap();
}

/// A waker that holds another call.
struct Holder(Mutex<Option<ChannelCall>>);

impl Wake for Holder {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

/// The waker of a call may end the last hold of another one of the same channel.
#[rstest]
#[case::dropped(|call: ChannelCall, _: &Channel| drop(call))]
#[case::polled_by_another(|mut call: ChannelCall, _: &Channel| {
    assert!(Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop())).is_pending());
})]
#[case::ended(|call: ChannelCall, channel: &Channel| {
    channel.close();
    block_on(channel.done());
    drop(call);
})]
fn wakers_may_use_the_channel(#[case] end: fn(ChannelCall, &Channel)) {
    let connector = connector(ReactorChoice::Auto, |_| {});
    let (_listener, channel, _peer) = listen(&connector, |it| it);
    let mut call = channel.call_within(PATIENCE, 1, "a");
    let other = channel.call_within(PATIENCE, 2, "b");
    let waker = Waker::from(Arc::new(Holder(Mutex::new(Some(other)))));
    assert!(Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    let (sender, done) = mpsc::channel();
    std::thread::spawn(move || {
        end(call, &channel);
        sender.send(()).unwrap();
    });
    done.recv_timeout(PATIENCE).expect("it waits for itself");
    connector.stop().unwrap();
}

#[rstest]
fn calls_fail_when_the_connection_does(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let calls = [channel.call(1, "a"), channel.call(2, "b")];
    let _ = (peer.read(), peer.read());
    drop(peer);
    for call in calls {
        assert_eq!(block_on(call), Err(CallError::Dropped));
    }
    assert!(matches!(block_on(channel.done()), Closed::ByPeer | Closed::Lost));
    assert!(!channel.is_open());
    assert_eq!(block_on(channel.call(3, "c")), Err(CallError::Stopped));
    assert_eq!(channel.notify(3, "d"), Err(CallError::Stopped));
    connector.stop().unwrap();
}

#[rstest]
fn a_shutdown_waits_for_calls_and_a_close_does_not(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] in_order: bool,
) {
    let patience = PATIENCE.as_millis() as u64;
    let connector = connector(reactor, |config| config.iproto.shutdown_timeout_ms = patience);
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let call = channel.call(5, "?");
    let asked = peer.read();
    if in_order {
        // A handle that is dropped shuts down.
        drop(channel);
        peer.send(5, asked.sync, b"!");
        assert_eq!(block_on(call).unwrap(), "!");
        assert_eq!(peer.read(), Packet { msg: SHUTDOWN, sync: 0, body: Vec::new() });
        peer.send(SHUTDOWN, 0, b"");
    } else {
        channel.close();
        assert_eq!(block_on(call), Err(CallError::Dropped));
        assert_eq!(block_on(channel.done()), Closed::ByHandler);
    }
    assert_eq!(peer.try_read(), None);
    connector.stop().unwrap();
}

#[rstest]
fn what_is_too_much_is_refused(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |config| config.iproto.calls_max = 3);
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let calls = [channel.call(1, "a"), channel.call(1, "b"), channel.call(1, "c")];
    let limit = 3;
    assert_eq!(block_on(channel.call(1, "d")), Err(CallError::TooManyCalls { limit }));
    assert_eq!(block_on(channel.call(PING, "")), Err(CallError::TooManyCalls { limit }));
    for call in calls {
        let Packet { msg, sync, body } = peer.read();
        peer.send(msg, sync, &body);
        drop(block_on(call).unwrap());
    }
    let control = CallError::ControlCode { msg: PING };
    assert_eq!(block_on(channel.call(PING, "")), Err(control));
    connector.stop().unwrap();
}

#[rstest]
fn a_peer_that_never_reads_fills_nothing_but_its_outbox(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, _peer) = listen(&connector, |it| it);
    let body = vec![7; 1 << 20];
    let mut calls = Vec::new();
    let refused = (0..400).find_map(|_| {
        let mut call = Box::pin(channel.call_within(PATIENCE, 1, &body));
        let waker = Waker::noop();
        let mut context = Context::from_waker(waker);
        match call.as_mut().poll(&mut context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => {
                calls.push(call);
                // The shard takes it, or says that it is full.
                let (sender, done) = mpsc::channel();
                connector.handle().run(move |_| sender.send(()).unwrap()).unwrap();
                done.recv_timeout(PATIENCE).unwrap();
                None
            }
        }
    });
    let failed = calls.into_iter().filter_map(|mut call| {
        let mut context = Context::from_waker(Waker::noop());
        match call.as_mut().poll(&mut context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    });
    let ends: Vec<_> = refused.into_iter().chain(failed).collect();
    assert!(!ends.is_empty(), "400 MiB were taken");
    assert!(ends.iter().all(|end| *end == Err(CallError::Full)), "{ends:?}");
    assert!(channel.is_open(), "who asks too much is told so, and nothing more happens");
    channel.close();
    connector.stop().unwrap();
}

#[rstest]
fn a_lost_connection_is_opened_again(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let again = Reconnect::default().first(Duration::from_millis(1));
    let (listener, channel, peer) = listen(&connector, |it| it.reconnect(again));
    assert_eq!(channel.generation(), 1);
    drop(peer);
    let mut peer = accept(&listener);
    // The listener has it before the channel knows.
    let call = loop {
        let call = channel.call(1, "?");
        if channel.generation() == 2 {
            break call;
        }
        drop(call);
        std::thread::yield_now();
    };
    let answers = std::thread::spawn(move || {
        while let Some(Packet { msg, sync, body }) = peer.try_read() {
            if msg == 1 {
                peer.send(msg, sync, &body);
            }
        }
    });
    let answer = block_on(call);
    assert!(
        matches!(&answer, Ok(_) | Err(CallError::NoChannel | CallError::Dropped)),
        "{answer:?}"
    );
    assert_eq!(channel.call_blocking(1, "again").unwrap(), "again");
    channel.close();
    answers.join().unwrap();
    connector.stop().unwrap();
}

#[rstest]
#[case("", "no host")]
#[case("127.0.0.1", "no port")]
#[case("127.0.0.1:0", "port")]
#[case("ws://127.0.0.1:1", "port")]
#[case("[::1", "bracket")]
fn a_wrong_address_is_named(#[case] wrong: &str, #[case] why: &str) {
    let error = Connect::to(wrong).check().expect_err("it is wrong");
    assert!(matches!(error, ConnectError::Address { .. }), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn nobody_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let refused = block_on(Connect::to(nobody.to_string()).open());
    assert!(matches!(refused, Err(ConnectError::Io { .. })), "{refused:?}");
}

/// Asks the server, and answers what the server asks meanwhile.
struct Both(mpsc::Sender<Vec<u8>>);

impl ClientHandler for Both {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        assert_eq!(opened.generation, 1);
        session.call(1, "what am I?", None, 9).unwrap();
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        assert_eq!((request.msg, &*request.body), (2, &b"who are you?"[..]));
        session.reply(request.reply, "a client");
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        session: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        assert_eq!(token, 9);
        self.0.send(response.unwrap().to_vec()).unwrap();
        session.shutdown();
    }
}

#[rstest]
fn callbacks_on_a_shard_serve_what_the_server_asks(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |shard: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            let who = session.ask(2, "who are you?", None, shard);
            let reply = request.reply.into_remote(shard);
            shard.spawn(async move { reply.send(who.await.unwrap()) }).detach();
        },
    );
    let connector = connector(reactor, |_| {});
    let (sender, answers) = mpsc::channel();
    let connect = Connect::to(address(&server).to_string());
    connector
        .handle()
        .run(move |shard| {
            shard.connect_iproto(connect, Both(sender));
        })
        .unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), b"a client");
    assert_eq!(next(&told), Told::Shutdown);
    assert_eq!(next(&told), Told::Closed(Closed::ByPeer));
    // The handler is gone with its connection.
    assert_eq!(answers.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    assert_eq!(ask(&server, |shard| shard.stats().counters.panics), 0);
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn notifies_arrive_in_their_order(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let answer = |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
        session.reply(request.reply, request.body);
    };
    let (server, told) = record(reactor, |_| {}, answer);
    let connector = connector(reactor, |_| {});
    let channel = open(&connector, &server);
    for msg in 0..1000_u32 {
        channel.notify(msg, &msg.to_le_bytes()).unwrap();
    }
    for msg in 0..1000_u32 {
        assert_eq!(next(&told), Told::Notify(msg, msg.to_le_bytes().to_vec()));
    }
    drop(channel);
    assert_eq!(next(&told), Told::Shutdown);
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_server_without_a_handler_for_a_code_answers_at_once() {
    let server = start(ReactorChoice::Auto, |_| {}, |_| Mux::new());
    let connector = connector(ReactorChoice::Auto, |_| {});
    let channel = open(&connector, &server);
    assert_eq!(channel.call_blocking(77, "?").unwrap(), [0xff; 4][..]);
    connector.stop().unwrap();
    server.stop().unwrap();
}

/// All responses were there before the shard looked, in one window.
#[rstest]
fn a_stall_times_out_no_call_whose_response_is_there(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let calls: Vec<_> = (0..128)
        .map(|_| channel.call_within(Duration::from_millis(300), 1, &[7; 50][..]))
        .collect();
    let mut answers = Vec::new();
    for _ in 0..128 {
        let it = peer.read();
        answers.extend(packet(it.msg, it.sync, &it.body));
    }
    // The shard does nothing for a while, as if its machine did nothing.
    let (began, has_begun) = mpsc::channel();
    connector
        .handle()
        .run(move |_| {
            began.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(600));
        })
        .unwrap();
    has_begun.recv().unwrap();
    peer.write(&answers);
    let ended: Vec<_> = calls.into_iter().map(block_on).collect();
    let failed = ended.iter().filter(|it| it.is_err()).count();
    assert_eq!(failed, 0, "of 128, {:?}", ended.iter().find(|it| it.is_err()));
    connector.stop().unwrap();
}
