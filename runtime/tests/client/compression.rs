//! Compressed messages there and back (permessage-deflate, RFC 7692), whatever either side keeps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use hioload::config::ReactorChoice;
use hioload::ws::Connect;
use hioload::{Compression, Server};
use rstest::rstest;

use crate::peer::Peer;
use crate::support::{Echo, address, config, connector, open, opening, wait};

/// Passes on the one connection that comes, and answers how many bytes went each way.
fn tap(server: SocketAddr) -> (String, JoinHandle<[u64; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let counting = thread::spawn(move || {
        let client = listener.accept().unwrap().0;
        let server = TcpStream::connect(server).unwrap();
        let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let back = thread::spawn(move || pass(server_too, client_too));
        [pass(client, server), back.join().unwrap()]
    });
    (url, counting)
}

fn pass(mut from: TcpStream, mut to: TcpStream) -> u64 {
    let (mut bytes, mut buffer) = (0, [0; 4096]);
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        bytes += len as u64;
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
    bytes
}

/// What may be kept, from nothing to both windows.
const SETTINGS: [Compression; 4] = [
    Compression::off(),
    Compression::no_context(),
    Compression::shared_window(),
    Compression::dedicated_window(),
];

#[rstest]
fn compressed_messages_come_back_and_are_shorter(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(0, 1, 2, 3)] server: usize,
    #[values(0, 1, 2, 3)] client: usize,
) {
    let (ours, theirs) = (SETTINGS[client], SETTINGS[server]);
    let running = Server::builder()
        .config(config(reactor, |_| {}))
        .listen("127.0.0.1:0")
        .websocket_compressed("/ws", theirs, |_| Echo)
        .start()
        .unwrap();
    let (url, counting) = tap(address(&running));
    let connector = connector(reactor);
    let mut handle = open(&connector, Connect::to(url).compression(ours));
    let record = |number: u32| {
        format!(r#"{{"id": {number}, "tags": ["a", "b"], "name": "{}"}}"#, "abc".repeat(100))
    };
    let messages: Vec<String> = (0..50)
        .map(|number| if number % 7 == 0 { String::new() } else { record(number) })
        .collect();
    wait(async {
        for message in &messages {
            handle.send(message.clone()).await.unwrap();
            assert_eq!(handle.next().await.unwrap().unwrap().text(), Some(&**message));
        }
    });
    drop(handle);
    connector.stop().unwrap();
    running.stop().unwrap();

    let plain: usize = messages.iter().map(String::len).sum();
    let is_compressed = ours != Compression::off() && theirs != Compression::off();
    for bytes in counting.join().unwrap() {
        assert_eq!(bytes < plain as u64 / 2, is_compressed, "{bytes} bytes of {plain}");
    }
}

/// What a client offers, and that it believes no answer that goes beyond it (RFC 7692 section 7.1).
#[rstest]
#[case::off(Compression::off(), "", "permessage-deflate", false)]
#[case::off_and_none(Compression::off(), "", "", true)]
#[case::declined(Compression::dedicated_window(), "; client_max_window_bits", "", true)]
#[case::plain(
    Compression::dedicated_window(),
    "; client_max_window_bits",
    "permessage-deflate",
    true
)]
#[case::its_own(
    Compression::dedicated_window(),
    "; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=9; server_max_window_bits=8",
    true
)]
#[case::what_we_cannot_compress_for_is_sent_plain(
    Compression::dedicated_window(),
    "; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=8",
    true
)]
#[case::unknown(
    Compression::dedicated_window(),
    "; client_max_window_bits",
    "permessage-deflate; x=1",
    false
)]
#[case::twice(
    Compression::dedicated_window(),
    "; client_max_window_bits",
    "permessage-deflate, permessage-deflate",
    false
)]
#[case::keeps_what_it_must_not(
    Compression::no_context(),
    "; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
    "permessage-deflate",
    false
)]
#[case::keeps_nothing(
    Compression::no_context(),
    "; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover",
    true
)]
fn answers_are_held_against_the_offer(
    #[case] compression: Compression,
    #[case] parameters: &str,
    #[case] answer: &str,
    #[case] opens: bool,
) {
    let connector = connector(ReactorChoice::Epoll);
    let peer = Peer::listen();
    let attempt = opening(&connector, Connect::to(peer.url()).compression(compression));
    let mut line = peer.accept();
    if compression == Compression::off() {
        assert!(!line.request.contains("Extensions"), "{}", line.request);
    } else {
        let expected = format!("permessage-deflate{parameters}");
        assert_eq!(line.header("Sec-WebSocket-Extensions"), expected);
    }
    let extensions = match answer {
        "" => String::new(),
        answer => format!("Sec-WebSocket-Extensions: {answer}\r\n"),
    };
    let response = line.response(&extensions);
    line.write(&response);
    assert_eq!(wait(attempt).is_ok(), opens);
}
