//! Many connections: what an idle one costs, and how they are spread over shards.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use hioload_protocol::ws::Opcode;
use rstest::rstest;

use common::{ServerProcess, be_server_if_asked, echo_len, open, push_frame, serve, tcp};

const MANY: usize = 10_000;

/// Connections before the measured ones: what is touched once is paid for by then.
const WARM: usize = 300;

fn echo(stream: &TcpStream) {
    let mut frame = Vec::new();
    push_frame(&mut frame, true, Opcode::Text, 20);
    (&*stream).write_all(&frame).expect("the server reads");
    let mut echo = vec![0; echo_len(20)];
    (&*stream).read_exact(&mut echo).expect("the echo comes");
}

/// One at a time: both sides of 10,000 connections are as many descriptors as one process may have
/// on many machines.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[rstest]
#[case::uring("uring", 512, "ten_thousand_idle_connections_are_cheap::case_1_uring")]
#[case::epoll("epoll", 272, "ten_thousand_idle_connections_are_cheap::case_2_epoll")]
fn ten_thousand_idle_connections_are_cheap(
    #[case] reactor: &str,
    #[case] bytes_max: usize,
    #[case] name: &str,
) {
    be_server_if_asked();
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let server = ServerProcess::start(name, reactor, 1);
    let mut streams: Vec<_> = (0..WARM).map(|_| open(server.address)).collect();
    streams.iter().for_each(echo);
    let before = server.anonymous_bytes();
    streams.extend((0..MANY).map(|_| open(server.address)));
    streams.iter().for_each(echo);
    let each = server.anonymous_bytes().saturating_sub(before) as f64 / MANY as f64;
    println!("{reactor}: {each:.0} bytes of user memory per idle connection");
    assert!(each <= bytes_max as f64, "{each:.0} bytes, at most {bytes_max} were promised");
    // They close cleanly: a close frame, its answer, and the end of the stream.
    let mut close = Vec::new();
    push_frame(&mut close, true, Opcode::Close, 0);
    for mut stream in &streams {
        stream.write_all(&close).expect("the server reads");
    }
    for mut stream in &streams {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the server closes");
        assert_eq!(rest, [0x88, 0]);
    }
    drop(streams);
    server.stop();
}

#[rstest]
fn each_of_two_shards_gets_its_share(#[values("uring", "epoll")] reactor: &str) {
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        println!("skipped: it takes two CPUs to have two shards");
        return;
    }
    let server = serve(reactor, 2);
    let streams: Vec<_> = (0..1000).map(|_| open(tcp(&server))).collect();
    let counts: Vec<usize> = server
        .handles()
        .iter()
        .map(|handle| {
            let (sender, answer) = std::sync::mpsc::channel();
            handle
                .run(move |shard| sender.send(shard.session_count()).expect("the test listens"))
                .expect("the mailbox has room");
            answer.recv().expect("the shard answers")
        })
        .collect();
    println!("{reactor}: {counts:?} of 1000 connections");
    assert_eq!(counts.iter().sum::<usize>(), streams.len());
    assert!(counts.iter().all(|count| *count >= 400));
    drop(streams);
    server.stop().expect("the shards end well");
}
