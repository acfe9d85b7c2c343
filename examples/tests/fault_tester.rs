//! The fault tester and servers that stall: they accept, and then neither read nor answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use rstest::rstest;

/// A server that answers the pings of iproto, but not on the connections that it stalls.
fn stalling(is_stalled: fn(usize) -> bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut stalled = Vec::new();
        for (number, mut stream) in listener.incoming().map_while(Result::ok).enumerate() {
            if is_stalled(number) {
                stalled.push(stream);
                continue;
            }
            thread::spawn(move || {
                let mut ping = [0; 12];
                while stream.read_exact(&mut ping).is_ok() && stream.write_all(&ping).is_ok() {}
            });
        }
    });
    address
}

fn flood(address: SocketAddr) -> Output {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).expect("it is in target/<profile>/deps");
    let path: PathBuf =
        [profile.as_os_str(), "examples".as_ref(), "fault_tester".as_ref()].iter().collect();
    let address = address.to_string();
    let flags = ["--protocol", "iproto", "--only", "notify-flood", "--patience-ms", "4000"];
    let mut command = Command::new(path);
    command.arg(address).args(flags).arg("--json");
    command.output().expect("`cargo test` has built the example")
}

/// The first connection is that of an honest client, the second one the attacker's.
#[rstest]
#[case::the_attacker(|number| number == 1, "held", true)]
#[case::everybody_from_the_attacker_on(|number| number >= 1, "broken", false)]
fn a_server_that_stalls_has_stopped_reading(
    #[case] is_stalled: fn(usize) -> bool,
    #[case] verdict: &str,
    #[case] is_served: bool,
) {
    let ran = flood(stalling(is_stalled));
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("it is JSON");
    let row = &report["attacks"][0];
    assert_eq!(row["did"], "stopped reading", "{row}");
    assert_eq!(row["verdict"], verdict, "{row}");
    assert_eq!(row["honest_clients_served"], is_served, "{row}");
    assert_eq!(ran.status.code(), Some(i32::from(!is_served)));
}

#[test]
fn a_server_that_answers_nobody_is_not_attacked() {
    let ran = flood(stalling(|_number| true));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(said.contains("nobody answers an honest iproto client"), "{said}");
    assert_eq!(ran.status.code(), Some(1));
}
