//! Connections that are taken away: every byte of them is found by whoever has the socket next.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use hioload::Shard;
use hioload::config::ReactorChoice;
use hioload::iproto::{
    Body, CallError, ClientHandler, Closed, Connect, Handler, Hijacked, Opened, Peer as Who, Pool,
    Reconnect, Request, Session,
};
use hioload::ws::{Connector, block_on};
use rstest::rstest;

use crate::channel::{accept, connector, listen};
use crate::support::{PATIENCE, Peer, packet, start};

/// Bytes that do not repeat soon.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 21) as u8).collect()
}

/// What is found of a hijacked connection: what was read in vain, then the socket to its end.
fn read_to_end(hijacked: Hijacked) -> Vec<u8> {
    let (mut socket, unread) = hijacked.into_tcp().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = unread.to_vec();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A shard that gives what is queued the time that it needs on a busy machine.
fn patient(reactor: ReactorChoice) -> Connector {
    connector(reactor, |config| {
        config.iproto.shutdown_timeout_ms = 20_000;
    })
}

/// Connections and sockets of the shard, and buffers that it lent; bytes of its memory in use.
fn holds(connector: &Connector) -> ([usize; 3], usize) {
    let (sender, answer) = mpsc::channel();
    let look = move |shard: &mut Shard| sender.send(shard.stats()).unwrap();
    connector.handle().run(look).expect("the mailbox has room");
    let stats = answer.recv_timeout(PATIENCE).expect("the shard answers");
    let reactor = stats.reactor;
    ([stats.connections, reactor.sockets, reactor.buffers_lent], stats.pool.in_use_bytes)
}

/// Waits until nothing is left of any connection; answers what the shard keeps for the next one.
fn until_it_is_free(connector: &Connector) -> usize {
    let begun = std::time::Instant::now();
    loop {
        let (held, bytes) = holds(connector);
        if held == [0; 3] {
            return bytes;
        }
        assert!(begun.elapsed() < PATIENCE, "connections, sockets and buffers: {held:?}");
        std::thread::yield_now();
    }
}

#[rstest]
fn half_a_packet_comes_with_the_socket(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(0, 1, 11, 12, 13, 500, 40_000, 150_000, 299_999)] cut: usize,
) {
    let connector = patient(reactor);
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let (call, other) = (channel.call(1, "?"), channel.call(2, "never answered"));
    let (sync, _) = (peer.read().sync, peer.read());
    // Behind the response something that could be the beginning of a notify.
    let tail = [&packet(5, 0, &pattern(300_000))[..], b"and something else"].concat();
    let response = packet(1, sync, b"!");
    peer.write(&[&response[..], &tail[..cut]].concat());
    assert_eq!(block_on(call).unwrap(), "!");
    let hijack = channel.hijack();
    // From here on nothing is read as iproto, and the socket is being released.
    assert_eq!(block_on(other), Err(CallError::Hijacked));
    let rest = tail[cut..].to_vec();
    let writing = std::thread::spawn(move || {
        peer.write(&rest);
        drop(peer);
    });
    let found = read_to_end(block_on(hijack).unwrap());
    assert!(found == tail, "{} of {} bytes", found.len(), tail.len());
    writing.join().unwrap();
    assert_eq!(block_on(channel.done()), Closed::Hijacked);
    drop(channel);
    until_it_is_free(&connector);
    connector.stop().unwrap();
}

#[rstest]
fn calls_fail_and_the_socket_goes_on(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let calls = [channel.call(1, "a"), channel.call(1, "b")];
    let hijack = channel.hijack();
    // Those that wait, and those that come.
    for call in calls.into_iter().chain([channel.call(2, "c")]) {
        assert_eq!(block_on(call), Err(CallError::Hijacked));
    }
    assert_eq!(channel.notify(2, "d"), Err(CallError::Hijacked));
    assert_eq!(channel.send(2, "e"), Err(CallError::Hijacked));
    assert_eq!(block_on(channel.notify_within(PATIENCE, 2, "f")), Err(CallError::Hijacked));
    assert!(!channel.is_open());
    let again = channel.hijack();
    assert_eq!(block_on(again).map(drop), Err(CallError::Hijacked));
    // What was asked before has left.
    assert_eq!((peer.read().body, peer.read().body), (b"a".to_vec(), b"b".to_vec()));
    let (mut socket, unread) = block_on(hijack).unwrap().into_tcp().unwrap();
    assert_eq!(unread, "");
    assert_eq!(block_on(channel.done()), Closed::Hijacked);
    assert_eq!(channel.call_blocking(3, "late"), Err(CallError::Hijacked));
    assert_eq!(block_on(channel.hijack()).map(drop), Err(CallError::Hijacked));
    // Both ways, and nobody pings or reads beside us.
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for round in 0..10_u8 {
        socket.write_all(&[round; 100]).unwrap();
        let mut there = [0; 100];
        peer.stream.read_exact(&mut there).unwrap();
        peer.write(&there);
        let mut back = [0; 100];
        socket.read_exact(&mut back).unwrap();
        assert_eq!(back, [round; 100]);
    }
    until_it_is_free(&connector);
    drop(channel);
    connector.stop().unwrap();
    peer.write(b"the shard has ended, the socket has not");
    let mut answer = [0; 39];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"the shard has ended, the socket has not");
}

#[rstest]
fn what_was_asked_before_leaves_first(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    // More than the sockets hold.
    let body = pattern(1 << 20);
    for number in 0..10 {
        channel.notify(number, &body).unwrap();
    }
    let hijack = channel.hijack();
    for number in 0..10 {
        let packet = peer.read();
        assert!(packet.msg == number && packet.body == body, "packet {number}");
    }
    let (mut socket, _) = block_on(hijack).unwrap().into_tcp().unwrap();
    socket.write_all(b"right behind it").unwrap();
    let mut behind = [0; 15];
    peer.stream.read_exact(&mut behind).unwrap();
    assert_eq!(&behind, b"right behind it");
    connector.stop().unwrap();
}

#[rstest]
fn who_does_not_read_is_dropped_in_the_end(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    for number in 0..10 {
        channel.notify(number, pattern(1 << 20)).unwrap();
    }
    assert_eq!(block_on(channel.hijack()).map(drop), Err(CallError::Dropped));
    assert_eq!(block_on(channel.done()), Closed::Stalled);
    assert_eq!(channel.call_blocking(1, "?"), Err(CallError::Stopped));
    until_it_is_free(&connector);
    let mut sent = Vec::new();
    let _ = peer.stream.read_to_end(&mut sent);
    assert!(sent.len() < 10 << 20);
    connector.stop().unwrap();
}

#[rstest]
fn a_hijack_that_nobody_awaits_closes_the_socket(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let hijack = channel.hijack();
    drop(channel);
    // It was asked for: the end of the channel does not take it back.
    let hijacked = block_on(hijack).unwrap();
    peer.write(b"for whoever has it");
    drop(peer);
    assert_eq!(read_to_end(hijacked), b"for whoever has it");
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    drop(channel.hijack());
    drop(channel);
    peer.read_to_end();
    until_it_is_free(&connector);
    connector.stop().unwrap();
}

#[rstest]
fn nothing_is_left_of_many(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let half = &packet(5, 0, &pattern(300_000))[..150_000];
    let kept: Vec<usize> = (0..20)
        .map(|_| {
            let (_listener, channel, mut peer) = listen(&connector, |it| it);
            let call = channel.call(1, "?");
            let sync = peer.read().sync;
            peer.write(&[&packet(1, sync, b"!")[..], half].concat());
            block_on(call).unwrap();
            let hijacked = block_on(channel.hijack()).unwrap();
            drop(peer);
            assert!(read_to_end(hijacked) == half);
            until_it_is_free(&connector)
        })
        .collect();
    // The first one makes what all others use again.
    assert_eq!(kept[0], kept[19], "{kept:?}");
    connector.stop().unwrap();
}

#[rstest]
fn there_must_be_something_to_hijack(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let (_listener, channel, peer) = listen(&connector, |it| it);
    drop(peer);
    assert_eq!(block_on(channel.done()), Closed::ByPeer);
    assert_eq!(block_on(channel.hijack()).map(drop), Err(CallError::Stopped));
    let (_listener, channel, _peer) = listen(&connector, |it| it);
    let shutdown = std::pin::pin!(channel.shutdown());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(Future::poll(shutdown, &mut cx).is_pending());
    assert_eq!(block_on(channel.hijack()).map(drop), Err(CallError::Stopped));
    connector.stop().unwrap();
}

#[rstest]
fn another_connection_is_opened_instead(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let soon = Reconnect::default().first(Duration::from_millis(1));
    let (listener, channel, mut first) = listen(&connector, |it| it.reconnect(soon));
    let hijacked = block_on(channel.hijack()).unwrap();
    let mut second = accept(&listener);
    while !channel.is_open() {
        std::thread::yield_now();
    }
    assert_eq!(channel.generation(), 2);
    let call = channel.call(1, "on the second");
    let asked = second.read();
    second.send(1, asked.sync, b"answered");
    assert_eq!(block_on(call).unwrap(), "answered");
    first.write(b"still there");
    drop(first);
    assert_eq!(read_to_end(hijacked), b"still there");
    connector.stop().unwrap();
}

#[rstest]
fn a_pool_dials_another(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = Pool::to(listener.local_addr().unwrap().to_string())
        .on(connector.handle())
        .connect_timeout(PATIENCE)
        .build()
        .unwrap();
    block_on(pool.init_all()).unwrap();
    let mut first = accept(&listener);
    let channel = block_on(pool.next_channel()).unwrap();
    let hijacked = block_on(channel.hijack()).unwrap();
    let mut second = accept(&listener);
    while pool.stats().online == 0 {
        std::thread::yield_now();
    }
    let call = pool.call(1, "on the second");
    let asked = second.read();
    assert_eq!(asked.body, b"on the second");
    second.send(1, asked.sync, b"answered");
    assert_eq!(block_on(call).unwrap(), "answered");
    assert_eq!((pool.stats().dials, pool.stats().online), (2, 1));
    first.write(b"still there");
    drop(first);
    assert_eq!(read_to_end(hijacked), b"still there");
    pool.close();
    connector.stop().unwrap();
}

/// Takes the connection away in the callback of the response.
struct Taker(mpsc::Sender<Hijacked>, mpsc::Sender<Closed>);

impl ClientHandler for Taker {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
        session.call(1, "speak something else", Some(PATIENCE), 0).unwrap();
        session.call(2, "never answered", Some(PATIENCE), 1).unwrap();
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        session: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        if token == 1 {
            assert_eq!(response.map(drop), Err(CallError::Hijacked));
            return;
        }
        assert_eq!(&*response.unwrap(), b"yes, from here on");
        session.hijack().unwrap();
        assert_eq!(session.hijack(), Err(CallError::Stopped));
        assert_eq!(session.notify(1, "more").map(drop), Err(CallError::Stopped));
    }

    fn hijacked(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, hijacked: Hijacked) {
        self.0.send(hijacked).unwrap();
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.1.send(reason).unwrap();
    }
}

#[rstest]
fn a_handler_takes_the_very_next_byte(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = patient(reactor);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Connect::to(listener.local_addr().unwrap().to_string()).timeout(PATIENCE);
    // Whole packets among them: they are not for us either.
    let foreign = [&packet(7, 0, b"no notify")[..], &packet(8, 9, b"no request"), b"##"].concat();
    let response_bytes = 12 + "yes, from here on".len();
    for cut in 0..=response_bytes + foreign.len() {
        let ((give, taken), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let (to, taker) = (to.clone(), Taker(give, tell));
        let connect = move |shard: &mut Shard| {
            shard.connect_iproto(to, taker);
        };
        connector.handle().run(connect).expect("the mailbox has room");
        let mut peer = accept(&listener);
        peer.stream.set_nodelay(true).unwrap();
        let (asked, _) = (peer.read(), peer.read());
        let stream = [&packet(1, asked.sync, b"yes, from here on")[..], &foreign].concat();
        peer.write(&stream[..cut]);
        if cut % 3 == 0 {
            // Whether that has arrived before the rest comes must not matter.
            std::thread::yield_now();
        }
        peer.write(&stream[cut..]);
        let hijacked = taken.recv_timeout(PATIENCE).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Closed::Hijacked);
        drop(peer);
        assert_eq!(read_to_end(hijacked), foreign, "cut at {cut}");
    }
    until_it_is_free(&connector);
    connector.stop().unwrap();
}

/// Serves one request, and hands the connection to a thread that sends everything back.
struct Upgrader;

impl Handler for Upgrader {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Who<'_>) -> Option<()> {
        Some(())
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        session.reply(request.reply, "yes");
        session.hijack().unwrap();
    }

    fn hijacked(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, hijacked: Hijacked) {
        std::thread::spawn(move || {
            let (mut socket, unread): (TcpStream, _) = hijacked.into_tcp().unwrap();
            socket.write_all(&unread).unwrap();
            let mut from = socket.try_clone().unwrap();
            std::io::copy(&mut from, &mut socket).unwrap();
        });
    }
}

#[rstest]
fn a_server_can_hand_its_connections_over(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |_| Upgrader);
    let mut peer = Peer::connect(&server);
    let bytes = pattern(200_000);
    // The request and what is no iproto any more, at once.
    peer.write(&[&packet(1, 1, b"?")[..], &bytes[..1000]].concat());
    assert_eq!(peer.read().body, b"yes");
    let mut writer = peer.stream.try_clone().unwrap();
    let rest = bytes[1000..].to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&rest).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    peer.stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == bytes, "{} bytes", back.len());
    server.stop().unwrap();
}
