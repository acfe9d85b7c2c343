//! A shard that is warm allocates nothing for iproto either: requests that are answered at once,
//! later, in the order of the handler, with an error, and after a question to the peer.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use hioload::config::{ListenAddress, ShardCount};
use hioload::iproto::{
    Body, CallError, HEADER_BYTES, Handler, Header, Peer, Reply, Request, Session, append_packet,
};
use hioload::{Server, Shard};
use rstest::rstest;

use common::counting::{Counting, count_here, take_count};
use common::{PATIENCE, choice};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 500;
const REQUESTS: u32 = 600;
/// So many of them make the handler ask back.
const QUESTIONS: usize = REQUESTS as usize / 6;

/// Counts from here on.
const BEGIN: u32 = 100;
/// Answers how many allocations there were.
const END: u32 = 101;
/// What the handler asks the peer.
const QUESTION: u32 = 50;

#[derive(Default)]
struct Mixed {
    kept: Vec<Reply>,
    asked: Vec<(u64, Reply)>,
}

impl Handler for Mixed {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<()> {
        Some(())
    }

    fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        let Request { msg, body, reply, .. } = request;
        match msg {
            BEGIN => {
                count_here(true);
                take_count();
                session.reply(reply, ());
            }
            END => {
                count_here(false);
                session.reply(reply, &take_count().to_le_bytes());
            }
            0 => {
                session.reply(reply, body);
            }
            1 => reply.send(shard, body),
            2 => reply.send(shard, "borrowed"),
            3 => {
                self.kept.push(reply);
                if self.kept.len() == 10 {
                    self.kept.drain(..).rev().for_each(|reply| reply.send(shard, "later"));
                }
            }
            4 => {
                let token = u64::from(reply.sync());
                session.call(QUESTION, body, None, token).expect("the peer may be asked");
                self.asked.push((token, reply));
            }
            _ => {}
        }
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        session: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let at = self.asked.iter().position(|(known, _)| *known == token).expect("it was asked");
        let (_, reply) = self.asked.swap_remove(at);
        session.reply(reply, response.expect("the peer answers"));
    }
}

/// A round of requests of every kind, from small ones to 70,000 bytes.
fn script() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..REQUESTS {
        let len = match number {
            0 => 70_000,
            _ if number % 50 == 0 => 5000,
            _ => number as usize % 300,
        };
        append_packet(&mut bytes, number % 6, number + 1, &vec![7; len]).expect("it is short");
    }
    bytes
}

fn read(stream: &mut TcpStream, body: &mut [u8]) -> Header {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).expect("the server answers");
    let header = Header::decode(&header);
    stream.read_exact(&mut body[..header.len as usize]).expect("the server answers");
    header
}

/// Plays a round: answers what is asked, until everything is answered.
fn play(stream: &mut TcpStream, script: &[u8]) {
    let mut writer = stream.try_clone().expect("there are descriptors");
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(script).expect("the server reads"));
        let mut body = vec![0; 100_000];
        let (mut answers, mut questions) = (0, Vec::new());
        while answers < REQUESTS {
            let header = read(stream, &mut body);
            match header.msg {
                QUESTION => questions.push((header.sync, body[..header.len as usize].to_vec())),
                _ => answers += 1,
            }
            // All at once, when the other thread is done: it must not be within a packet.
            if questions.len() == QUESTIONS {
                let mut bytes = Vec::new();
                for (sync, body) in questions.drain(..) {
                    append_packet(&mut bytes, QUESTION, sync, &body).expect("it is short");
                }
                stream.write_all(&bytes).expect("the server reads");
            }
        }
    });
}

fn call(stream: &mut TcpStream, msg: u32) -> u64 {
    let mut bytes = Vec::new();
    append_packet(&mut bytes, msg, 1_000_000, b"").expect("it is short");
    stream.write_all(&bytes).expect("the server reads");
    let mut body = [0; 8];
    let header = read(stream, &mut body);
    assert_eq!(header.msg, msg);
    u64::from_le_bytes(body)
}

#[rstest]
fn requests_cost_no_allocation(#[values("uring", "epoll")] reactor: &str) {
    let server = Server::builder().iproto("127.0.0.1:0", |_| Mixed::default());
    let server = server.configure(|config| {
        config.server.reactor = choice(reactor);
        config.server.shards = ShardCount::Exactly(1);
        // Nothing may happen by itself while something is measured.
        config.iproto.ping_interval_ms = 0;
    });
    let server = server.start().expect("the server starts");
    let [ListenAddress::Tcp(address)] = server.raw_addresses() else { panic!("one TCP address") };
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let script = script();
    (0..50).for_each(|_| play(&mut stream, &script));
    call(&mut stream, BEGIN);
    (0..ROUNDS).for_each(|_| play(&mut stream, &script));
    let counted = call(&mut stream, END);
    println!("{reactor}: {} requests, {counted} allocations", ROUNDS * REQUESTS as usize);
    assert_eq!(counted, 0, "a warm shard allocated");
    drop(stream);
    server.stop().expect("the shards end well");
}
