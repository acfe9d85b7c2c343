//! What the server asks of a channel or a pool, and how that is answered.

use std::net::TcpListener;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use hioload::Shard;
use hioload::config::ReactorChoice;
use hioload::iproto::{CallError, Channel, Closed, Connect, Pool, Reconnect, Request, SHUTDOWN};
use hioload::ws::block_on;
use rstest::rstest;

use crate::channel::{accept, connector, listen};
use crate::support::{PATIENCE, Packet, ask_shard};

fn asked(msg: u32, sync: u32, body: &[u8]) -> Packet {
    Packet { msg, sync, body: body.to_vec() }
}

fn at_once(shard: &mut Shard, request: Request) {
    request.reply.send(shard, request.body);
}

fn later(shard: &mut Shard, request: Request) {
    let (reply, body) = (request.reply.into_remote(shard), request.body.to_bytes());
    let sleep = shard.sleep(Duration::from_millis(1));
    let answering = async move {
        sleep.await;
        reply.send(body);
    };
    shard.spawn(answering).detach();
}

fn from_another_thread(shard: &mut Shard, request: Request) {
    let (reply, body) = (request.reply.into_remote(shard), request.body.to_bytes());
    std::thread::spawn(move || reply.send(body));
}

fn not_at_all(_: &mut Shard, _: Request) {}

#[rstest]
#[case::at_once(at_once, b"who are you?")]
#[case::later(later, b"who are you?")]
#[case::from_another_thread(from_another_thread, b"who are you?")]
#[case::dropped(not_at_all, &[0xff; 4])]
fn a_channel_answers_while_its_own_call_waits(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[case] serve: fn(&mut Shard, Request),
    #[case] answer: &[u8],
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, mut peer) = listen(&connector, |it| it.on_request(serve));
    let call = channel.call_within(PATIENCE, 1, "what am I?");
    assert_eq!(peer.read(), asked(1, 1, b"what am I?"));
    for sync in 900..903 {
        peer.send(2, sync, b"who are you?");
    }
    let mut answers = [peer.read(), peer.read(), peer.read()];
    answers.sort_by_key(|it| it.sync);
    assert_eq!(answers, [900, 901, 902].map(|sync| asked(2, sync, answer)));
    peer.send(1, 1, b"a client");
    assert_eq!(block_on(call).unwrap(), "a client");
    let stats = channel.stats();
    assert_eq!((stats.calls, stats.requests_in, stats.unsolicited), (1, 3, 0));
    connector.stop().unwrap();
}

/// The function may use its own channel, as no lock is held: also to ask back before it answers.
#[rstest]
fn the_function_may_call_on_its_own_channel(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let own: Arc<OnceLock<Channel>> = Arc::default();
    let known = Arc::clone(&own);
    let (_listener, channel, mut peer) = listen(&connector, |connect| {
        connect.on_request(move |shard, request| {
            let own = known.get().expect("it was opened before it was asked");
            assert!(own.is_open() && own.stats().requests_in == 1);
            let question = own.call_within(PATIENCE, 3, "why?");
            let reply = request.reply.into_remote(shard);
            shard.spawn(async move { reply.send(question.await.unwrap()) }).detach();
        })
    });
    assert!(own.set(channel.clone()).is_ok());
    let call = channel.call_within(PATIENCE, 1, "what am I?");
    assert_eq!(peer.read(), asked(1, 1, b"what am I?"));
    peer.send(2, 77, b"who are you?");
    assert_eq!(peer.read(), asked(3, 2, b"why?"));
    peer.send(3, 2, b"because");
    assert_eq!(peer.read(), asked(2, 77, b"because"));
    peer.send(1, 1, b"a client");
    assert_eq!(block_on(call).unwrap(), "a client");
    channel.close();
    connector.stop().unwrap();
}

#[rstest]
fn notifies_are_heard_in_their_order(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (sender, heard) = mpsc::channel();
    let (_listener, channel, mut peer) = listen(&connector, |connect| {
        connect.on_notify(move |_, msg, body| sender.send((msg, body.to_vec())).unwrap())
    });
    // Requests are not served for that.
    peer.send(5, 5, b"?");
    for msg in 0..1000_u32 {
        peer.send(msg, 0, &msg.to_le_bytes());
    }
    for msg in 0..1000_u32 {
        let next = heard.recv_timeout(PATIENCE).unwrap();
        assert_eq!(next, (msg, msg.to_le_bytes().to_vec()));
    }
    assert_eq!(channel.stats().unsolicited, 1);
    channel.close();
    assert_eq!(peer.try_read(), None, "nobody was to answer");
    connector.stop().unwrap();
}

#[rstest]
fn a_panic_costs_the_connection_and_nothing_else(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, other, mut other_peer) = listen(&connector, |it| it);
    let (_listener, channel, mut peer) = listen(&connector, |it| {
        it.on_request(|_, request| panic!("asked {}", request.msg)).reconnect(Reconnect::default())
    });
    let call = channel.call_within(PATIENCE, 1, "?");
    assert_eq!(peer.read().msg, 1);
    peer.send(2, 1, b"?");
    assert_eq!(block_on(call), Err(CallError::Dropped));
    assert_eq!(block_on(channel.done()), Closed::Panicked);
    peer.read_to_end();
    let call = other.call_within(PATIENCE, 1, "?");
    let Packet { msg, sync, body } = other_peer.read();
    other_peer.send(msg, sync, &body);
    assert_eq!(block_on(call).unwrap(), "?");
    assert_eq!(ask_shard(&connector.handle(), |shard| shard.stats().counters.panics), 1);
    connector.stop().unwrap();
}

#[rstest]
fn every_connection_of_a_pool_serves_also_those_that_come_back(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (sender, heard) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = Pool::to(listener.local_addr().unwrap().to_string())
        .on(connector.handle())
        .connect_timeout(PATIENCE)
        .size(3)
        .on_request(|shard, request| match request.msg {
            13 => panic!("asked for it"),
            _ => request.reply.send(shard, request.body),
        })
        .on_notify(move |_, msg, _| sender.send(msg).unwrap())
        .build()
        .unwrap();
    block_on(pool.init_all()).unwrap();
    let mut peers: Vec<_> = (0..3).map(|_| accept(&listener)).collect();
    for round in 0..3 {
        for (number, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.call(2, 1, &[number as u8; 5000]), [number as u8; 5000]);
            peer.send(7, 0, b"heard");
            assert_eq!(heard.recv_timeout(PATIENCE), Ok(7), "round {round}");
        }
        // One of them panics, which a pool does not mind.
        let mut unlucky = peers.remove(0);
        unlucky.send(13, 1, b"");
        unlucky.read_to_end();
        peers.push(accept(&listener));
    }
    pool.close();
    connector.stop().unwrap();
}

/// Who shuts down asks no more, but answers until the server has said the same.
#[rstest]
#[case::by_us(true)]
#[case::by_the_server(false)]
fn requests_are_answered_until_the_end_of_a_shutdown(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[case] by_us: bool,
) {
    let patience = PATIENCE.as_millis() as u64;
    let connector = connector(reactor, |config| config.iproto.shutdown_timeout_ms = patience);
    let (sender, held) = mpsc::channel();
    let (_listener, channel, mut peer) = listen(&connector, |connect| {
        connect.on_request(move |shard, request| match request.msg {
            1 => sender.send(request.reply.into_remote(shard)).unwrap(),
            _ => request.reply.send(shard, request.body),
        })
    });
    let told = asked(SHUTDOWN, 0, b"");
    peer.send(1, 10, b"answered late");
    let reply = held.recv_timeout(PATIENCE).unwrap();
    let stopping = if by_us {
        let stopping = std::thread::spawn(move || block_on(channel.shutdown()));
        assert_eq!(peer.read(), told);
        // It has asked nothing more, and answers on.
        assert_eq!(peer.call(2, 11, b"still there?"), b"still there?");
        peer.send(SHUTDOWN, 0, b"");
        reply.send("late");
        assert_eq!(peer.read(), asked(1, 10, b"late"));
        stopping
    } else {
        peer.send(SHUTDOWN, 0, b"");
        reply.send("late");
        // Behind its shutdown nothing is to come.
        assert_eq!(peer.read(), asked(1, 10, b"late"));
        assert_eq!(peer.read(), told);
        std::thread::spawn(move || block_on(channel.done()))
    };
    assert_eq!(peer.try_read(), None);
    let expected = if by_us { Closed::ByHandler } else { Closed::ByPeer };
    assert_eq!(stopping.join().unwrap(), expected);
    connector.stop().unwrap();
}

#[test]
fn a_description_says_what_it_calls_and_may_be_cloned() {
    fn goes_anywhere<T: Send + Sync + Clone>(_: &T) {}
    let connect = Connect::to("127.0.0.1:1").on_request(at_once).on_notify(|_, _, _| {});
    goes_anywhere(&connect);
    let said = format!("{:?}", connect.clone());
    assert!(said.contains("request: true") && said.contains("init: false"), "{said}");
    let pool = Pool::to("127.0.0.1:1").on_request(at_once).init(|_| async { Ok::<(), String>(()) });
    goes_anywhere(&pool);
    assert!(format!("{pool:?}").contains("init: true"), "{pool:?}");
}
