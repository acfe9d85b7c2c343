//! The built examples as people run them: flags, output, exit codes, signals.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hioload::config::Config;
use hioload::iproto::pack::unpack_front;
use hioload::iproto::{Header, SHUTDOWN, append_packet};
use rstest::rstest;

/// Longer than anything here takes, also on a busy machine: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// An example beside this test: `target/<profile>/examples/NAME`, which `cargo test` has built.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).expect("it is in target/<profile>/deps");
    let path: PathBuf = [profile.as_os_str(), "examples".as_ref(), name.as_ref()].iter().collect();
    assert!(path.exists(), "{} is not built: run `cargo test` without `--test`", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(name: &str, flags: &[&str]) -> Output {
    example(name).args(flags).output().expect("the example starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An example that runs. It is killed if a test fails.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(mut command: Command, reads_stderr: bool) -> Self {
        let unread = if reads_stderr { Command::stdout } else { Command::stderr };
        unread(&mut command, Stdio::null());
        let mut child = command.spawn().expect("the example starts");
        let pipe: Box<dyn Read + Send> = match (child.stdout.take(), child.stderr.take()) {
            (Some(pipe), _) => Box::new(pipe),
            (_, Some(pipe)) => Box::new(pipe),
            (None, None) => unreachable!("one of them is piped"),
        };
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// `echo` on a free port.
    fn echo(flags: &[&str]) -> (Self, SocketAddr) {
        Self::server("echo", flags)
    }

    /// An example that serves, on a free port.
    fn server(name: &str, flags: &[&str]) -> (Self, SocketAddr) {
        let mut command = example(name);
        command.args(["--addr", "127.0.0.1:0"]).args(flags);
        let running = Self::start(command, true);
        let line = running.line_with("listening on ");
        let (_, address) = line.split_once("listening on ").expect("it was asked for");
        let address = address.parse().expect("it is an address");
        (running, address)
    }

    /// The next line with this text.
    fn line_with(&self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => seen = seen + &line + "\n",
                Err(_) => panic!("no line with {wanted:?} in:\n{seen}"),
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("there is a kill").success());
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            std::thread::yield_now();
        }
        panic!("it does not end");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the example accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

/// Opens a WebSocket with the key of RFC 6455 section 1.3.
fn open(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = connect(address);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the example reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let [byte] = read(&mut stream);
        head.push(byte);
    }
    let head = text(&head);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).expect("the example answers");
    bytes
}

/// A masked close frame with 1001: the mask is zero.
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

#[rstest]
fn echo_echoes(
    #[values("auto", "uring", "epoll")] reactor: &str,
    #[values("/ws", "/")] path: &str,
) {
    let (_echo, address) = Running::echo(&["--reactor", reactor]);
    let mut client = open(address, path);
    // RFC 6455 section 5.7: a masked "Hello", and the answer without a mask.
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    client.write_all(&hello).unwrap();
    assert_eq!(&read::<7>(&mut client), b"\x81\x05Hello");
}

/// Two in a room hear each other and themselves, whatever their shards; the next room does not.
#[test]
fn chat_has_rooms() {
    let (mut chat, address) = Running::server("chat", &[]);
    let mut clients: Vec<_> = (0..8).map(|_| open(address, "/chat/rust")).collect();
    let mut elsewhere = open(address, "/chat/elsewhere");
    // Masked with zeros: "Hello", and "Bye".
    clients[0].write_all(b"\x81\x85\0\0\0\0Hello").unwrap();
    for client in &mut clients {
        assert_eq!(&read::<7>(client), b"\x81\x05Hello");
    }
    elsewhere.write_all(b"\x81\x83\0\0\0\0Bye").unwrap();
    assert_eq!(&read::<5>(&mut elsewhere), b"\x81\x03Bye");
    let mut nowhere = connect(address);
    nowhere.write_all(b"GET /chat/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(&read::<13>(&mut nowhere), b"HTTP/1.1 404 ");
    drop((clients, elsewhere, nowhere));
    chat.signal("TERM");
    assert_eq!(chat.wait().code(), Some(0));
}

/// Sends a packet of iproto.
fn ask(stream: &mut TcpStream, msg: u32, sync: u32, body: &[u8]) {
    let mut packet = Vec::new();
    append_packet(&mut packet, msg, sync, body).expect("it is short");
    stream.write_all(&packet).expect("the example reads");
}

/// Asks and reads the answer.
fn call(stream: &mut TcpStream, msg: u32, sync: u32, body: &[u8]) -> Vec<u8> {
    ask(stream, msg, sync, body);
    let header = Header::decode(&read(stream));
    assert_eq!((header.msg, header.sync), (msg, sync));
    let mut body = vec![0; header.len as usize];
    stream.read_exact(&mut body).expect("the example answers");
    body
}

#[rstest]
fn iproto_echo_echoes(#[values("uring", "epoll")] reactor: &str) {
    let (mut running, address) = Running::server("iproto_echo", &["--reactor", reactor]);
    let mut stream = connect(address);
    for (sync, len) in (1..).zip([0, 5, 3000]) {
        assert_eq!(call(&mut stream, 42, sync, &vec![7; len]), vec![7; len]);
    }
    running.signal("TERM");
    // It asks for a shutdown, and gets one.
    assert_eq!(Header::decode(&read(&mut stream)), Header { msg: SHUTDOWN, len: 0, sync: 0 });
    ask(&mut stream, SHUTDOWN, 0, b"");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn iproto_mux_keeps_values() {
    let (_running, address) = Running::server("iproto_mux", &[]);
    let mut stream = connect(address);
    let code = |body: &[u8]| unpack_front::<u32>(body).expect("it begins with a code").0;
    assert_eq!(code(&call(&mut stream, 1, 1, &[7, 0, 0, 0])), 1);
    let body = [&7_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
    assert_eq!(code(&call(&mut stream, 2, 2, &body)), 0);
    let found = call(&mut stream, 1, 3, &[7, 0, 0, 0]);
    assert_eq!(found, [&[0; 4][..], &3_u32.to_le_bytes(), b"abc"].concat());
    ask(&mut stream, 3, 0, &[7, 0, 0, 0]);
    assert_eq!(code(&call(&mut stream, 1, 4, &[7, 0, 0, 0])), 1);
    assert_eq!(code(&call(&mut stream, 1, 5, b"?")), 2);
    assert_eq!(code(&call(&mut stream, 99, 6, b"")), 3);
}

#[rstest]
fn iproto_pool_calls_and_counts(#[values("uring", "epoll")] reactor: &str) {
    let (_running, address) = Running::server("iproto_echo", &["--reactor", reactor]);
    let address = address.to_string();
    let flags = ["--addr", &address, "--calls", "200", "--size", "3", "--body", "number {}"];
    let Output { status, stdout, stderr } = output("iproto_pool", &flags);
    assert_eq!((text(&stderr).as_str(), status.code()), ("", Some(0)));
    let stdout = text(&stdout);
    for line in ["200 calls in ", "answered     200\n", "\"number 0\"", "of 3 open", "200 packets"]
    {
        assert!(stdout.contains(line), "no {line:?} in:\n{stdout}");
    }
    assert!(!stdout.contains("failed       "), "{stdout}");
}

#[test]
fn iproto_pool_says_what_failed() {
    let nobody = output("iproto_pool", &["--addr", "127.0.0.1:1", "--connect-timeout-ms", "100"]);
    assert_eq!(nobody.status.code(), Some(1));
    let refused = "error: cannot connect to 127.0.0.1:1: Connection refused";
    assert!(text(&nobody.stderr).starts_with(refused), "{}", text(&nobody.stderr));
    let wrong = output("iproto_pool", &["--addr", "nowhere"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).starts_with("error: the address `nowhere` "));
    // A server that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let flags = ["--addr", &address, "--calls", "3", "--timeout-ms", "50"];
    let late = output("iproto_pool", &flags);
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stdout).contains("failed       3: no response came in time"));
}

#[rstest]
fn iproto_client_is_content_with_iproto_echo(#[values("uring", "epoll")] reactor: &str) {
    let (_running, address) = Running::server("iproto_echo", &["--reactor", reactor]);
    let to = ["--addr", &address.to_string(), "--reactor", reactor];
    let Output { status, stdout, stderr } = output("iproto_client", &to);
    assert!(status.success(), "{}", text(&stderr));
    assert_eq!(text(&stdout).matches("good: ").count(), 5);
    let Output { status, stderr, .. } =
        output("iproto_client", &[&to[..], &["--short", "2"]].concat());
    assert!(status.success(), "{}", text(&stderr));
    // An echo server does not ask back.
    let Output { status, .. } = output("iproto_client", &[&to[..], &["--asked-back"]].concat());
    assert_eq!(status.code(), Some(1));
}

#[test]
fn iproto_packing_prints_bytes() {
    let Output { status, stdout, .. } = output("iproto_packing", &[]);
    assert!(status.success());
    let stdout = text(&stdout);
    for line in
        ["u32 258          02010000", "u32 258, BER     8202", "100000 as u16    the packed"]
    {
        assert!(stdout.contains(line), "no {line:?} in:\n{stdout}");
    }
}

#[test]
fn echo_tells_that_it_is_healthy() {
    let (_echo, address) = Running::echo(&[]);
    let mut client = connect(address);
    client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(response.ends_with("\r\n\r\nok\n"), "{response}");
}

#[rstest]
fn a_signal_ends_every_session_with_1001(
    #[values("TERM", "INT")] signal: &str,
    #[values("uring", "epoll")] reactor: &str,
) {
    let (mut echo, address) = Running::echo(&["--reactor", reactor]);
    let mut clients = [open(address, "/ws"), open(address, "/")];
    echo.signal(signal);
    for client in &mut clients {
        assert_eq!(read::<4>(client), [0x88, 0x02, 0x03, 0xe9]);
        client.write_all(&CLOSE).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "it ends the connection");
    }
    drop(clients);
    assert_eq!(echo.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("patient.toml");
    fs::write(&file, "[websocket]\nclose_timeout_ms = 600_000\n[shutdown]\ndrain_ms = 600_000\n")
        .unwrap();
    let (mut echo, address) = Running::echo(&["--config", &file.display().to_string()]);
    let mut deaf = open(address, "/ws");
    echo.signal("INT");
    echo.line_with("SIGINT: closing");
    assert_eq!(read::<4>(&mut deaf), [0x88, 0x02, 0x03, 0xe9]);
    echo.signal("INT");
    assert_eq!(echo.wait().code(), Some(130));
    echo.line_with("SIGINT: ended at once");
}

#[test]
fn check_prints_the_configuration_and_the_bill() {
    let check = output("echo", &["--check", "--addr", "127.0.0.1:0", "--reactor", "epoll"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let stdout = text(&check.stdout);
    let (toml, report) = stdout.split_once("\nhioload ").expect("the report follows");
    let mut expected = Config::from_toml("server.reactor = 'epoll'", "test").unwrap();
    expected.server.listen = vec!["127.0.0.1:0".parse().unwrap()];
    assert_eq!(Config::from_toml(toml, "stdout").unwrap(), expected);
    for line in ["shard 0 on cpu ", "memory of a shard, at most:", "  total "] {
        assert!(report.contains(line), "{line:?} is missing in:\n{report}");
    }
}

#[rstest]
fn flags_are_explained(
    #[values(
        "echo",
        "chat",
        "reactor_echo",
        "client",
        "autobahn_client",
        "iproto_echo",
        "iproto_mux",
        "iproto_client",
        "iproto_pool"
    )]
    name: &str,
) {
    let help = output(name, &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let flag = if name.ends_with("client") { "--reactor" } else { "--addr" };
    assert!(text(&help.stdout).contains(&format!("{flag} <")), "{}", text(&help.stdout));
    let version = output(name, &["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(text(&version.stdout), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    let unknown = output(name, &[&flag[..flag.len() - 1], "epoll"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains(flag), "{}", text(&unknown.stderr));
}

/// Runs `echo`, which must find its configuration wrong; gives the one line that says why.
fn complaint(flags: &[&str]) -> String {
    let failed = output("echo", flags);
    let stderr = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(78), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    stderr
}

#[test]
fn a_wrong_key_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml").display().to_string();
    fs::write(&file, "# a comment\n[server]\nlissten = ['127.0.0.1:0']\n").unwrap();
    for flags in [&["--config", &file][..], &["--config", &file, "--check"]] {
        let line = complaint(flags);
        assert!(line.contains(&format!("{file}:3: ")), "{line}");
        assert!(line.contains("did you mean `listen`"), "{line}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing.toml").display().to_string();
    let line = complaint(&["--config", &file]);
    assert!(line.contains(&file) && line.contains("no such file"), "{line}");
}

#[test]
fn a_port_in_use_is_named() {
    let (_first, address) = Running::echo(&[]);
    let line = complaint(&["--addr", &address.to_string()]);
    assert!(line.contains(&address.to_string()), "{line}");
}

#[test]
fn the_example_configuration_is_the_default_with_every_key() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/echo.toml");
    assert_eq!(Config::from_file(file.as_ref()).unwrap(), Config::default());
    let is_key = |line: &&str| line.contains(" = ") && !line.starts_with('#');
    let file = fs::read_to_string(file).unwrap();
    let all = Config::default().to_toml();
    assert_eq!(
        file.lines().filter(is_key).collect::<Vec<_>>(),
        all.lines().filter(is_key).collect::<Vec<_>>(),
    );
    let lines: Vec<_> = file.lines().collect();
    for pair in lines.windows(2).filter(|pair| is_key(&pair[1])) {
        assert!(pair[0].starts_with("# "), "no comment on `{}`", pair[1]);
    }
}

#[test]
fn reactor_echo_tells_what_it_does() {
    let mut command = example("reactor_echo");
    command.args(["--addr", "127.0.0.1:0"]);
    let echo = Running::start(command, false);
    let line = echo.line_with("[reactor-echo] Listening on ");
    let address = line.split_whitespace().find_map(|word| word.parse().ok()).expect("an address");
    echo.line_with("[reactor-echo] Reactor initialized: ");
    let mut client = connect(address);
    echo.line_with("[reactor-echo] Accepted connection from 127.0.0.1:");
    client.write_all(b"hello\n").unwrap();
    assert_eq!(&read::<6>(&mut client), b"hello\n");
    echo.line_with("[reactor-echo] Received (6 bytes): hello");
    echo.line_with("[reactor-echo] Sent (6 bytes) back to client");
    client.shutdown(Shutdown::Write).unwrap();
    echo.line_with("[reactor-echo] Connection closed by peer");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn reactor_echo_sends_the_last_bytes_of_a_client_that_half_closes() {
    let mut command = example("reactor_echo");
    command.args(["--addr", "127.0.0.1:0"]);
    let echo = Running::start(command, false);
    let line = echo.line_with("[reactor-echo] Listening on ");
    let address = line.split_whitespace().find_map(|word| word.parse().ok()).expect("an address");
    // While it stands still, the bytes and the FIN of every client gather.
    echo.signal("STOP");
    let clients: Vec<_> = (0..20).map(|_| connect(address)).collect();
    for mut client in &clients {
        client.write_all(b"last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    echo.signal("CONT");
    for mut client in &clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "last words");
    }
}

/// What it says of each attack, by its name: the verdict and the code of the server.
fn verdicts(output: &Output) -> Vec<(String, String, Option<u64>)> {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let rows = report["attacks"].as_array().expect("a list").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    rows.map(|row| (text(&row["attack"]), text(&row["verdict"]), row["code"].as_u64())).collect()
}

#[test]
fn the_fault_tester_finds_nothing_broken_in_the_echo() {
    let (_echo, address) = Running::echo(&[]);
    let only = "junk-key,two-hosts,header-bomb,foreign-origin,unmasked,bad-utf-8,huge-length,\
                empty-continuations,reset-storm";
    let address = address.to_string();
    let flags = [address.as_str(), "--json", "--only", only, "--connections", "20"];
    let output = output("fault_tester", &flags);
    let seen = verdicts(&output);
    let codes: Vec<_> = seen.iter().map(|(_, _, code)| *code).collect();
    let expected = [400, 400, 431, 403, 1002, 1007, 1009, 1008].map(Some);
    // In the order of the report, not of the flag.
    assert_eq!(codes.len(), 9);
    assert!(expected.iter().all(|code| codes.contains(code)), "{seen:?}");
    assert!(seen.iter().all(|(_, verdict, _)| verdict == "held"), "{seen:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_fault_tester_attacks_iproto() {
    let (_echo, address) = Running::server("iproto_echo", &[]);
    let address = address.to_string();
    let only = "giant-length,garbage,http,shutdown-and-more";
    let flags = [address.as_str(), "--protocol", "iproto", "--json", "--only", only];
    let output = output("fault_tester", &flags);
    let seen = verdicts(&output);
    assert!(seen.len() == 4 && seen.iter().all(|(_, verdict, _)| verdict == "held"), "{seen:?}");
    assert_eq!(output.status.code(), Some(0));
}

/// A server that opens a session for everything, and takes whatever it is sent; but it hangs up on
/// those that are refused by their number.
fn gullible(is_refused: fn(usize) -> bool) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let (mut stream, is_refused) = (stream, is_refused(number));
            std::thread::spawn(move || {
                if is_refused {
                    return;
                }
                let (mut bytes, mut head) = ([0; 4096], Vec::new());
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut bytes) {
                        Ok(count @ 1..) => head.extend_from_slice(&bytes[..count]),
                        _ => return,
                    }
                }
                let answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
                let mut said = stream.write_all(answer);
                while said.is_ok() && matches!(stream.read(&mut bytes), Ok(1..)) {
                    said = stream.write_all(b"\x8a\x00");
                }
            });
        }
    });
    address
}

#[test]
fn the_fault_tester_notices_a_server_that_takes_everything() {
    let address = gullible(|_| false).to_string();
    let only = "junk-key,unmasked,bad-close-code,foreign-origin";
    let output = output("fault_tester", &[address.as_str(), "--json", "--only", only]);
    let seen = verdicts(&output);
    let broken = seen.iter().filter(|(_, verdict, _)| verdict == "broken").count();
    let open =
        seen.iter().filter(|(name, verdict, _)| name == "foreign-origin" && verdict == "open");
    assert_eq!((broken, open.count()), (3, 1), "{seen:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_attack_without_a_session_was_not_tried() {
    // Honest clients come before and after it.
    let address = gullible(|number| number == 1).to_string();
    let output = output("fault_tester", &[address.as_str(), "--json", "--only", "unmasked"]);
    assert_eq!(verdicts(&output)[0].1, "not tried");
    assert_eq!(output.status.code(), Some(1));
}

#[rstest]
#[case::elsewhere(&["192.0.2.1:80"], 2, "--i-may-attack-this")]
#[case::no_address(&["nowhere"], 2, "write HOST:PORT")]
#[case::no_attack(&["--only", "nonsense"], 2, "--list names them")]
#[case::nobody(&["127.0.0.1:1"], 1, "nobody answers")]
fn the_fault_tester_says_why_it_does_not_attack(
    #[case] flags: &[&str],
    #[case] code: i32,
    #[case] expected: &str,
) {
    let output = output("fault_tester", flags);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(expected), "{said}");
}

#[test]
fn the_fault_tester_lists_what_it_can_do() {
    let websocket = text(&output("fault_tester", &["--list"]).stdout);
    let iproto = text(&output("fault_tester", &["--list", "--protocol", "iproto"]).stdout);
    assert!(websocket.lines().count() >= 40 && websocket.contains("compression-bomb"));
    assert!(iproto.lines().count() >= 10 && iproto.contains("giant-length"));
}
