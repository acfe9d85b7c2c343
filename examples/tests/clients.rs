//! The examples that connect: what they print, when they end, and with which code.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use hioload::config::ListenAddress;
use hioload::{CloseCode, Handler, Message, Request, Running, Server, Session, Shard, Upgrade};
use rstest::rstest;

/// Longer than anything here takes, also on a busy machine: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays several servers, by its path.
struct Several;

impl Handler for Several {
    /// The path.
    type Session = String;

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<String> {
        let path = request.path().to_owned();
        match &*path {
            "/secret" if request.header("Authorization") != Some("Bearer abc") => {
                Upgrade::refuse(401)
            }
            "/chat" if request.header("Sec-WebSocket-Protocol") == Some("v2, v1") => {
                Upgrade::accept(path).subprotocol("v1")
            }
            "/chat" => Upgrade::refuse(400),
            "/runCase" => Upgrade::accept(request.target().to_owned()),
            _ => Upgrade::accept(path),
        }
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, String>) {
        match &**session.data {
            "/binary" => drop(session.send_binary(&[0, 0xab, 0xff])),
            "/getCaseCount" => {
                session.send_text("2");
                session.close(CloseCode::NORMAL, "");
            }
            "/updateReports" | "/leave" => session.close(CloseCode::NORMAL, ""),
            path if path.starts_with("/runCase") => drop(session.send_text("case")),
            _ => {}
        }
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, String>, message: Message) {
        if session.data.starts_with("/runCase") {
            assert_eq!(message.text(), Some("case"));
            session.close(CloseCode::NORMAL, "");
        } else {
            session.send(message);
        }
    }
}

fn serve() -> (Running, String) {
    let paths = [
        "/ws",
        "/secret",
        "/chat",
        "/binary",
        "/leave",
        "/getCaseCount",
        "/runCase",
        "/updateReports",
    ];
    let server = Server::builder().listen("127.0.0.1:0").configure(|config| {
        config.server.shards = hioload::config::ShardCount::Exactly(1);
    });
    let server = paths.iter().fold(server, |server, path| server.websocket(*path, |_| Several));
    let server = server.start().expect("the server starts");
    let [ListenAddress::Tcp(address)] = server.addresses() else { panic!("one TCP address") };
    let url = format!("ws://{address}");
    (server, url)
}

/// An example beside this test, with pipes.
fn start(name: &str, flags: &[&str]) -> Child {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).expect("it is in target/<profile>/deps");
    let path: PathBuf = [profile.as_os_str(), "examples".as_ref(), name.as_ref()].iter().collect();
    assert!(path.exists(), "{} is not built: run `cargo test` without `--test`", path.display());
    let mut command = Command::new(path);
    command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the example starts")
}

/// What is left of its output, once it has ended.
fn end(mut child: Child) -> Output {
    let (sender, ended) = mpsc::channel();
    let id = child.id();
    drop(child.stdin.take());
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match ended.recv_timeout(PATIENCE) {
        Ok(output) => output.expect("it is our child"),
        Err(_) => panic!("the process {id} does not end"),
    }
}

fn run(flags: &[&str], input: &str) -> Output {
    let mut child = start("client", flags);
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    // Beside the reading: who prints more than a pipe holds reads no more input before that.
    std::thread::spawn(move || {
        // It may end before it has read everything.
        let _ = stdin.write_all(input.as_bytes());
    });
    end(child)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[rstest]
fn lines_of_a_pipe_come_back(#[values("auto", "uring", "epoll")] reactor: &str) {
    let (server, url) = serve();
    let output = run(&[&format!("{url}/ws"), "--reactor", reactor], "one\ntwo\n\nfour");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), "one\ntwo\n\nfour\n");
    assert_eq!(output.status.code(), Some(0));
    server.stop().unwrap();
}

#[test]
fn many_lines_come_back() {
    let (server, url) = serve();
    let lines: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    let output = run(&[&format!("{url}/ws"), "--count", "50000"], &lines);
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout) == lines, "they came back changed");
    assert_eq!(output.status.code(), Some(0));
    server.stop().unwrap();
}

#[test]
fn it_ends_after_so_many_messages() {
    let (server, url) = serve();
    let mut child = start("client", &[&format!("{url}/ws"), "--count", "2"]);
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(b"one\ntwo\n").unwrap();
    // The input does not end, and yet:
    let output = end(child);
    drop(stdin);
    assert_eq!(text(&output.stdout), "one\ntwo\n");
    assert_eq!(output.status.code(), Some(0));
    server.stop().unwrap();
}

#[test]
fn binary_messages_are_shown_in_hex() {
    let (server, url) = serve();
    let output = run(&[&format!("{url}/binary"), "--count", "1"], "");
    assert_eq!(text(&output.stdout), "00abff\n");
    assert_eq!(output.status.code(), Some(0));
    server.stop().unwrap();
}

#[test]
fn headers_and_subprotocols_are_sent() {
    let (server, url) = serve();
    let secret = format!("{url}/secret");
    let output = run(&[&secret, "--header", "Authorization: Bearer abc", "--count", "1"], "in\n");
    assert_eq!((text(&output.stdout), output.status.code()), ("in\n".to_owned(), Some(0)));
    let chat = format!("{url}/chat");
    let offers = ["--subprotocol", "v2", "--subprotocol", "v1", "--count", "1"];
    let output = run(&[&[&*chat][..], &offers].concat(), "in\n");
    assert_eq!((text(&output.stdout), output.status.code()), ("in\n".to_owned(), Some(0)));
    server.stop().unwrap();
}

#[test]
fn a_signal_closes_the_connection() {
    let (server, url) = serve();
    let mut child = start("client", &[&format!("{url}/ws")]);
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(b"hello\n").unwrap();
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
    let status = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(status.expect("there is a kill").success());
    let output = end(child);
    drop(stdin);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    server.stop().unwrap();
}

#[rstest]
#[case::url(&["http://127.0.0.1/"], 2, "scheme")]
#[case::tls(&["wss://127.0.0.1/"], 2, "TLS")]
#[case::header(&["ws://127.0.0.1/", "--header", "no colon"], 2, "no colon")]
#[case::bad_header(&["ws://127.0.0.1/", "--header", "Upgrade: h2c"], 2, "header")]
#[case::refused(&["ws://127.0.0.1:1/"], 1, "127.0.0.1:1")]
fn what_went_wrong_is_said_in_one_line(
    #[case] flags: &[&str],
    #[case] code: i32,
    #[case] why: &str,
) {
    let output = run(flags, "");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(why), "{stderr}");
    assert_eq!(text(&output.stdout), "");
}

#[rstest]
#[case::refused(&["/secret"], "401")]
#[case::closed(&["/leave", "--count", "1"], "closed")]
fn a_server_that_does_not_play_along(#[case] flags: &[&str], #[case] why: &str) {
    let (server, url) = serve();
    let output = run(&[&[&*format!("{url}{}", flags[0])][..], &flags[1..]].concat(), "");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(why), "{stderr}");
    server.stop().unwrap();
}

#[rstest]
fn the_suite_is_run_to_its_end(#[values("uring", "epoll")] reactor: &str) {
    let (server, url) = serve();
    let flags = ["--url", &url, "--reactor", reactor, "--agent", "test"];
    let output = end(start("autobahn_client", &flags));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.ends_with("case 2 of 2\n"), "{stderr}");
    server.stop().unwrap();
}
