//! What is done with a new connection before anybody else may use it.

use std::future::{Future, pending};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hioload::config::{ReactorChoice, ShardCount};
use hioload::iproto::{
    CallError, Channel, ClientHandler, Connect, ConnectError, FreshChannel, Handler, Peer as Who,
    Pool, Reconnect, Request, SHUTDOWN, Session,
};
use hioload::ws::{Connector, block_on};
use hioload::{Running, Server, Shard};
use rstest::rstest;

use crate::channel::{accept, connector};
use crate::restarts::free_address;
use crate::support::{PATIENCE, Packet, Peer, packet};

/// What the set-up of the tests asks.
const TOKEN: u32 = 1;

type Opening = JoinHandle<Result<Channel, ConnectError>>;
type Steps = Pin<Box<dyn Future<Output = Result<(), String>>>>;

async fn authenticate(fresh: FreshChannel) -> Result<(), CallError> {
    fresh.call_within(PATIENCE, TOKEN, "the token").await.map(drop)
}

/// Opens a channel to the test, which is to answer its set-up.
fn begin(
    connector: &Connector,
    describe: impl FnOnce(Connect) -> Connect,
) -> (TcpListener, Opening) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = Connect::to(listener.local_addr().unwrap().to_string()).timeout(PATIENCE);
    let opening = describe(connect).open_on(connector);
    (listener, std::thread::spawn(move || block_on(opening)))
}

fn answer(peer: &mut Peer, msg: u32) {
    let asked = peer.read();
    assert_eq!(asked.msg, msg, "{asked:?}");
    peer.send(msg, asked.sync, &asked.body);
}

fn until(what: &str, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "it never happens: {what}");
        std::thread::yield_now();
    }
}

#[rstest]
fn nobody_uses_a_channel_before_it_is_set_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let again = Reconnect::default().first(Duration::from_millis(1));
    let (listener, opening) = begin(&connector, |it| {
        it.reconnect(again).init(|fresh| async move {
            fresh.notify(2, "hello")?;
            authenticate(fresh).await
        })
    });
    let mut peer = accept(&listener);
    assert_eq!(peer.read(), Packet { msg: 2, sync: 0, body: b"hello".to_vec() });
    answer(&mut peer, TOKEN);
    let channel = opening.join().unwrap().unwrap();
    assert_eq!((channel.generation(), channel.is_open()), (1, true));
    for generation in 2..5 {
        drop(peer);
        peer = accept(&listener);
        assert_eq!(peer.read().msg, 2);
        let token = peer.read();
        // The connection is there, and only its set-up may use it.
        assert_eq!(channel.call_blocking(3, "?"), Err(CallError::NoChannel));
        assert_eq!(channel.notify(3, "!"), Err(CallError::NoChannel));
        assert_eq!((channel.generation(), channel.is_open()), (generation - 1, false));
        peer.send(TOKEN, token.sync, b"welcome");
        until("it is open again", || channel.is_open());
        assert_eq!(channel.generation(), generation);
        let call = channel.call_within(PATIENCE, 4, "?");
        answer(&mut peer, 4);
        assert_eq!(block_on(call).unwrap(), "?");
    }
    channel.close();
    connector.stop().unwrap();
}

/// Takes nothing from a connection before its token: counts what was in front of one.
struct Gate {
    accepted: Arc<AtomicUsize>,
    too_early: Arc<AtomicUsize>,
    let_in: Arc<AtomicUsize>,
}

impl Handler for Gate {
    type Session = bool;

    fn accept(&mut self, _: &mut Shard, _: &Who<'_>) -> Option<bool> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Some(false)
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, bool>, request: Request) {
        if request.msg == TOKEN {
            *session.data = true;
            self.let_in.fetch_add(1, Ordering::Relaxed);
        } else if !*session.data {
            self.too_early.fetch_add(1, Ordering::Relaxed);
        }
        session.reply(request.reply, request.body);
    }
}

#[rstest]
fn a_pool_authenticates_first_on_each_connection_to_each_life_of_the_server(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let address = free_address(2 + usize::from(reactor == ReactorChoice::Uring));
    let [accepted, too_early, let_in] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let live = || -> Running {
        let counts = [&accepted, &too_early, &let_in].map(Arc::clone);
        let gate = move |_: &mut Shard| {
            let [accepted, too_early, let_in] = counts.each_ref().map(Arc::clone);
            Gate { accepted, too_early, let_in }
        };
        let builder = Server::builder().configure(|config| {
            config.server.reactor = reactor;
            config.server.shards = ShardCount::Exactly(1);
            config.memory.buffers = 16;
            config.iproto.shutdown_timeout_ms = 100;
        });
        builder.iproto(&address.to_string(), gate).start().expect("the port is free again")
    };
    let connector = connector(reactor, |_| {});
    let pool = Pool::to(address.to_string()).on(connector.handle()).size(3);
    let pool = pool.connect_timeout(PATIENCE).init(authenticate).build().unwrap();
    let (ended, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    match pool.call_blocking(2, "?") {
                        Ok(_) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(CallError::Dropped | CallError::NoChannel) => {}
                        Err(CallError::Stopped) if ended.load(Ordering::Relaxed) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        for _ in 0..5 {
            let server = live();
            until("all are there", || pool.stats().online == 3);
            let before = answered.load(Ordering::Relaxed);
            until("calls are answered", || answered.load(Ordering::Relaxed) >= before + 100);
            server.stop().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        pool.close();
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    assert_eq!(count(&too_early), 0, "somebody was in front of a token");
    assert!(count(&let_in) >= 15 && count(&let_in) <= count(&accepted));
    connector.stop().unwrap();
}

fn refuses(_: FreshChannel) -> Steps {
    Box::pin(async { Err("the token was refused".to_owned()) })
}

fn panics(_: FreshChannel) -> Steps {
    panic!("before there is a future")
}

fn panics_later(fresh: FreshChannel) -> Steps {
    Box::pin(async move {
        let answer = fresh.call_within(PATIENCE, TOKEN, "").await;
        assert!(answer.is_err(), "this panic is wanted");
        Ok(())
    })
}

fn asks(fresh: FreshChannel) -> Steps {
    Box::pin(async move { authenticate(fresh).await.map_err(|error| error.to_string()) })
}

fn hangs(_: FreshChannel) -> Steps {
    Box::pin(pending())
}

/// What the server does when it has accepted.
fn nothing(peer: Peer) -> Peer {
    peer
}

fn answers(mut peer: Peer) -> Peer {
    answer(&mut peer, TOKEN);
    peer
}

fn closes(mut peer: Peer) -> Peer {
    assert_eq!(peer.read().msg, TOKEN);
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    peer
}

fn shuts_down(mut peer: Peer) -> Peer {
    assert_eq!(peer.read().msg, TOKEN);
    peer.send(SHUTDOWN, 0, b"");
    assert_eq!(peer.read().msg, SHUTDOWN);
    peer
}

#[rstest]
#[case::error(refuses, nothing, "the token was refused")]
#[case::panic(panics, nothing, "it panicked")]
#[case::panic_of_the_future(panics_later, answers, "it panicked")]
#[case::hang(hangs, nothing, "it took longer than 300 ms")]
#[case::server_closes(asks, closes, "the server closed the connection")]
#[case::server_shuts_down(asks, shuts_down, "the server shut the connection down")]
fn a_set_up_that_fails_is_an_error_of_open(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[case] init: fn(FreshChannel) -> Steps,
    #[case] act: fn(Peer) -> Peer,
    #[case] why: &str,
) {
    let connector = connector(reactor, |_| {});
    let limit = if why.contains("300") { Duration::from_millis(300) } else { PATIENCE };
    let (listener, opening) = begin(&connector, |it| it.timeout(limit).init(init));
    let mut peer = act(accept(&listener));
    let error = opening.join().unwrap().expect_err("it was not set up");
    assert!(matches!(&error, ConnectError::SetUp { reason } if **reason == *why), "{error:?}");
    assert_eq!(error.to_string(), format!("the set-up of the connection failed: {why}"));
    assert!(error.is_temporary());
    peer.read_to_end();
    connector.stop().unwrap();
}

#[rstest]
fn a_pool_says_how_the_set_up_failed_and_dials_again(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = Pool::to(listener.local_addr().unwrap().to_string()).on(connector.handle());
    let pool = pool.connect_timeout(PATIENCE).init(|fresh| async move {
        let answer = fresh.call_within(PATIENCE, TOKEN, "").await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer == "welcome" { Ok(()) } else { Err("unwelcome".to_owned()) }
    });
    let pool = pool.build().unwrap();
    // It waits for a connection, not for one that is not set up.
    let call = pool.call_within(PATIENCE, 2, "?");
    let call = std::thread::spawn(move || block_on(call));
    for failed in 1..=3 {
        let mut peer = accept(&listener);
        let token = peer.read();
        assert_eq!((pool.stats().online, pool.online().len()), (0, 0));
        peer.send(TOKEN, token.sync, b"go away");
        peer.read_to_end();
        until("it is counted", || pool.stats().dials_failed == failed);
    }
    let mut peer = accept(&listener);
    let token = peer.read();
    peer.send(TOKEN, token.sync, b"welcome");
    answer(&mut peer, 2);
    assert_eq!(call.join().unwrap().unwrap(), "?");
    let stats = pool.stats();
    assert_eq!((stats.online, stats.dials, stats.dials_failed), (1, 4, 3));
    pool.close();
    connector.stop().unwrap();
}

/// Says so when it is dropped.
struct Gone(mpsc::Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        // A test that has ended does not listen.
        let _ = self.0.send(());
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[rstest]
fn who_drops_a_handle_ends_the_set_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] is_pool: bool,
) {
    let connector = connector(reactor, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (sender, gone) = mpsc::channel();
    let init = move |fresh: FreshChannel| {
        let gone = Gone(sender.clone());
        async move {
            let result = authenticate(fresh).await;
            drop(gone);
            result
        }
    };
    let mut peer = if is_pool {
        let pool = Pool::to(address.to_string()).on(connector.handle()).connect_timeout(PATIENCE);
        let pool = pool.init(init).build().unwrap();
        let mut waiting = Box::pin(pool.call_within(PATIENCE, 2, "?"));
        poll_once(waiting.as_mut());
        let mut peer = accept(&listener);
        assert_eq!(peer.read().msg, TOKEN);
        drop(pool);
        assert_eq!(block_on(waiting), Err(CallError::Stopped));
        peer
    } else {
        let connect = Connect::to(address.to_string()).timeout(PATIENCE).init(init);
        let mut opening = Box::pin(connect.open_on(&connector));
        poll_once(opening.as_mut());
        let mut peer = accept(&listener);
        assert_eq!(peer.read().msg, TOKEN);
        drop(opening);
        peer
    };
    gone.recv_timeout(PATIENCE).expect("the future of the set-up is dropped");
    assert_eq!(peer.read().msg, SHUTDOWN);
    peer.send(SHUTDOWN, 0, b"");
    assert_eq!(peer.try_read(), None);
    connector.stop().unwrap();
}

#[rstest]
fn a_shard_that_stops_ends_the_set_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (listener, opening) =
        begin(&connector, |it| it.init(hangs).reconnect(Reconnect::default()));
    let mut peer = accept(&listener);
    connector.stop().unwrap();
    let error = opening.join().unwrap().expect_err("it was not set up");
    assert!(matches!(error, ConnectError::Stopped), "{error:?}");
    peer.read_to_end();
}

/// What a set-up keeps is of no use behind it, nor for the next connection.
#[rstest]
fn a_fresh_channel_is_good_for_its_own_set_up_only(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (sender, kept) = mpsc::channel();
    let again = Reconnect::default().first(Duration::from_millis(1));
    let (listener, opening) = begin(&connector, |it| {
        it.reconnect(again).init(move |fresh| {
            sender.send(fresh.clone()).unwrap();
            authenticate(fresh)
        })
    });
    let mut peer = accept(&listener);
    let first = kept.recv_timeout(PATIENCE).unwrap();
    answer(&mut peer, TOKEN);
    let channel = opening.join().unwrap().unwrap();
    assert_eq!(block_on(first.call(7, "?")), Err(CallError::Stopped));
    drop(peer);
    let mut peer = accept(&listener);
    let second = kept.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first.notify(7, "!"), Err(CallError::Stopped));
    second.notify(8, "mine").unwrap();
    let mut heard = [peer.read().msg, peer.read().msg];
    heard.sort_unstable();
    assert_eq!(heard, [TOKEN, 8]);
    drop(peer);
    drop(listener);
    channel.close();
    block_on(channel.done());
    assert_eq!(second.notify(9, "!"), Err(CallError::Stopped));
    connector.stop().unwrap();
}

/// The server may ask before the connection is open to everybody.
#[rstest]
fn the_server_may_ask_during_the_set_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (listener, opening) = begin(&connector, |it| {
        it.init(authenticate).on_request(|shard, request| request.reply.send(shard, "a challenge"))
    });
    let mut peer = accept(&listener);
    let token = peer.read();
    assert_eq!(peer.call(5, 1, b"?"), b"a challenge");
    peer.send(TOKEN, token.sync, b"");
    assert!(opening.join().unwrap().unwrap().is_open());
    connector.stop().unwrap();
}

fn setup_error(reactor: ReactorChoice, end: impl FnOnce(&mut Peer, Vec<u8>)) -> ConnectError {
    let connector = connector(reactor, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = Connect::to(listener.local_addr().unwrap().to_string()).timeout(PATIENCE);
    let opening = connect
        .init(|fresh| async move {
            let answer = fresh.call_within(PATIENCE, 1, "token").await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer == "welcome" { Ok(()) } else { Err("the token was refused".to_owned()) }
        })
        .open_on(&connector);
    let opening = std::thread::spawn(move || block_on(opening));
    let mut peer = accept(&listener);
    let asked = peer.read();
    let answer = packet(1, asked.sync, b"go away");
    end(&mut peer, answer);
    let error = opening.join().unwrap().expect_err("refused");
    connector.stop().unwrap();
    error
}

#[rstest]
fn a_server_that_refuses_and_closes_is_quoted(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let mut said = Vec::new();
    for _ in 0..10 {
        let error = setup_error(reactor, |peer, answer| {
            peer.write(&answer);
            peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        said.push(error.to_string());
    }
    assert!(said.iter().all(|it| it.ends_with("the token was refused")), "{said:#?}");
}

#[rstest]
fn a_server_that_refuses_and_shuts_down_is_quoted(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let error = setup_error(reactor, |peer, mut answer| {
        answer.extend(packet(SHUTDOWN, 0, b""));
        peer.write(&answer);
    });
    assert!(error.to_string().ends_with("the token was refused"), "{error}");
}

/// A pool that its own function knows is kept by itself, also after its end.
#[test]
fn a_pool_that_was_closed_lets_go_of_its_functions() {
    let connector = connector(ReactorChoice::Epoll, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own: Arc<OnceLock<Pool>> = Arc::default();
    let (known, (sender, gone)) = (Arc::clone(&own), mpsc::channel());
    let guard = Gone(sender);
    let pool = Pool::to(listener.local_addr().unwrap().to_string())
        .on(connector.handle())
        .on_notify(move |_, _, _| {
            let _ = (&guard, known.get().is_some());
        })
        .build()
        .unwrap();
    own.set(pool.clone()).ok().unwrap();
    drop(own);
    block_on(pool.init()).unwrap();
    pool.close();
    block_on(pool.done());
    drop(pool);
    gone.recv_timeout(PATIENCE).expect("nobody can use the pool any more");
    connector.stop().unwrap();
}

/// What a handler would have to do for itself is not left out in silence.
#[test]
fn functions_of_a_channel_are_refused_where_a_handler_serves() {
    struct Told(mpsc::Sender<String>);
    impl Handler for Told {
        type Session = ();

        fn accept(&mut self, _: &mut Shard, _: &Who<'_>) -> Option<()> {
            None
        }

        fn request(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Request) {}
    }
    impl ClientHandler for Told {
        fn failed(&mut self, _: &mut Shard, error: &ConnectError) {
            self.0.send(error.to_string()).unwrap();
        }
    }
    let connector = connector(ReactorChoice::Epoll, |_| {});
    let (sender, said) = mpsc::channel();
    let connect = move |shard: &mut Shard| {
        let connect = Connect::to("127.0.0.1:1").init(authenticate);
        shard.connect_iproto(connect, Told(sender));
    };
    connector.handle().run(connect).unwrap();
    let sentence = said.recv_timeout(PATIENCE).unwrap();
    assert!(
        sentence.contains("`init`, `on_request` and `on_notify` are for a channel"),
        "{sentence}"
    );
    connector.stop().unwrap();
}
