//! An iproto server with a function for each code: a small store of keys and values, one of each
//! core. 1 gets, 2 sets, 3 (a notify) deletes.
//!
//! `cargo run --release --example iproto_mux -- --help` shows the flags.

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::ExitCode;
use std::rc::Rc;

use clap::{Parser, ValueEnum};
use hioload::config::ReactorChoice;
use hioload::iproto::{Mux, Pack, Reply, Session, Unpack, pack, unpack};
use hioload::{Server, Shard};

const GET: u32 = 1;
const SET: u32 = 2;
const DELETE: u32 = 3;

/// Return codes: every answer begins with one.
const GOOD: u32 = 0;
const NOT_FOUND: u32 = 1;
const MALFORMED: u32 = 2;
const UNKNOWN: u32 = 3;

/// Keeps values: 1 gets, 2 sets, 3 deletes. Each core has a store of its own.
#[derive(Parser)]
#[command(name = "iproto_mux", version)]
struct Flags {
    /// Address to listen on: HOST:PORT, :PORT for every interface, or unix:/PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3301")]
    addr: String,
    /// How to talk to the kernel
    #[arg(long, value_enum, default_value = "auto")]
    reactor: ReactorFlag,
    /// Print the resolved configuration, the placement and the memory bill, and exit
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReactorFlag {
    /// io_uring if it can be had, epoll otherwise
    Auto,
    /// io_uring, or fail
    Uring,
    /// epoll
    Epoll,
}

#[derive(Unpack)]
struct Set {
    key: u32,
    value: String,
}

#[derive(Pack)]
struct Value<'a> {
    code: u32,
    value: &'a str,
}

/// Answers with a value; what has no packed form drops the reply, which answers with an error.
fn answer(session: &mut Session<()>, reply: Reply, code: u32, value: &str) {
    if let Ok(body) = pack(&Value { code, value }) {
        session.reply(reply, body);
    }
}

/// Called once per core, on its thread: what the functions share needs no lock.
fn store(_: &mut Shard) -> Mux {
    let values = Rc::new(RefCell::new(HashMap::<u32, String>::new()));
    let (getting, deleting) = (Rc::clone(&values), Rc::clone(&values));
    Mux::new()
        .handle(GET, move |_, session, request| match unpack::<u32>(&request.body) {
            Ok(key) => match getting.borrow().get(&key) {
                Some(value) => answer(session, request.reply, GOOD, value),
                None => answer(session, request.reply, NOT_FOUND, ""),
            },
            Err(error) => answer(session, request.reply, MALFORMED, &error.to_string()),
        })
        .handle(SET, move |_, session, request| match unpack::<Set>(&request.body) {
            Ok(Set { key, value }) => {
                values.borrow_mut().insert(key, value);
                answer(session, request.reply, GOOD, "");
            }
            Err(error) => answer(session, request.reply, MALFORMED, &error.to_string()),
        })
        .handle_notify(DELETE, move |_, _, _, body| {
            if let Ok(key) = unpack::<u32>(&body) {
                deleting.borrow_mut().remove(&key);
            }
        })
        .default(|_, session, request| answer(session, request.reply, UNKNOWN, "no such code"))
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let reactor = match flags.reactor {
        ReactorFlag::Auto => ReactorChoice::Auto,
        ReactorFlag::Uring => ReactorChoice::Uring,
        ReactorFlag::Epoll => ReactorChoice::Epoll,
    };
    let server = Server::builder().iproto(&flags.addr, store).reactor(reactor);
    if flags.check { server.print_check() } else { server.run() }
}
