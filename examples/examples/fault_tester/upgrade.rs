//! Attacks before there is a session: on the HTTP head that asks for one.

use std::time::Duration;

use crate::peer::{Heard, Peer, Target, not_tried};
use crate::report::{Attack, Did, Outcome, Rule, Run};

/// Between two bytes of a slow handshake.
const DRIP: Duration = Duration::from_millis(100);

pub(crate) const ATTACKS: &[Attack] = &[
    attack("slow-handshake", "a head by the byte, ten a second", Rule::Wise, slow_handshake),
    attack("header-bomb", "a head of 1 MiB", Rule::Wise, |target| {
        ask(target, &target.handshake(&format!("X: {}\r\n", "a".repeat(1 << 20))))
    }),
    attack("many-headers", "a head of 2,000 lines", Rule::Wise, |target| {
        ask(target, &target.handshake(&"X: a\r\n".repeat(2000)))
    }),
    attack(
        "junk-key",
        "a key that is not 16 bytes in base64 (RFC 6455 4.2.1)",
        Rule::Must,
        |target| ask(target, &target.handshake("").replace("dGhlIHNhbXBsZSBub25jZQ==", "junk")),
    ),
    attack("no-key", "no key (RFC 6455 4.2.1)", Rule::Must, |target| {
        ask(target, &target.handshake("").replace("Sec-WebSocket-Key", "X-Key"))
    }),
    attack("wrong-version", "version 99 (RFC 6455 4.4)", Rule::Must, |target| {
        ask(target, &target.handshake("").replace("Version: 13", "Version: 99"))
    }),
    attack("wrong-method", "POST (RFC 6455 4.2.1)", Rule::Must, |target| {
        ask(target, &target.handshake("Content-Length: 0\r\n").replacen("GET", "POST", 1))
    }),
    attack("two-hosts", "two Host headers (RFC 9112 3.2)", Rule::Must, |target| {
        ask(target, &target.handshake("Host: other.example\r\n"))
    }),
    attack("no-host", "no Host header (RFC 9112 3.2)", Rule::Must, |target| {
        ask(target, &target.handshake("").replace("Host:", "X-Host:"))
    }),
    attack("body", "an upgrade that announces a body", Rule::Wise, |target| {
        ask(target, &target.handshake("Content-Length: 5\r\n"))
    }),
    attack("length-and-chunked", "Content-Length and Transfer-Encoding", Rule::Wise, |target| {
        ask(target, &target.handshake("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"))
    }),
    attack("bare-line-feed", "a line that ends with LF alone", Rule::Wise, |target| {
        ask(target, &target.handshake("X: a\nY: b\r\n"))
    }),
    attack("folded-line", "a folded line (RFC 9112 5.2)", Rule::Wise, |target| {
        ask(target, &target.handshake("X: a\r\n b\r\n"))
    }),
    attack("space-before-colon", "`Name : value` (RFC 9112 5.1)", Rule::Must, |target| {
        ask(target, &target.handshake("X : a\r\n"))
    }),
    attack("nul-in-header", "a NUL in a value (RFC 9110 5.5)", Rule::Wise, |target| {
        ask(target, &target.handshake("X: a\0b\r\n"))
    }),
    attack("smuggled-request", "a second request behind one that is refused", Rule::Wise, smuggled),
    attack("foreign-origin", "a page of another site (RFC 6455 10.2)", Rule::Wise, |target| {
        ask(target, &target.handshake("Origin: https://evil.example\r\n"))
    }),
];

const fn attack(
    name: &'static str,
    about: &'static str,
    rule: Rule,
    run: fn(&Target) -> Outcome,
) -> Attack {
    Attack { name, about, rule, run: Run::Do(run) }
}

/// Sends a request, and tells how it is answered.
fn ask(target: &Target, request: &str) -> Outcome {
    let Some(mut peer) = Peer::connect(target) else { return not_tried() };
    peer.say(request.as_bytes());
    let did = match peer.head() {
        Some(head) => status(&head),
        None if peer.is_over() => Did::Waits,
        None => Did::Ended,
    };
    peer.outcome(did, String::new())
}

fn status(head: &str) -> Did {
    match head.split(' ').nth(1).and_then(|status| status.parse().ok()) {
        Some(101) => Did::Took,
        Some(status @ 400..) => Did::Refused(status),
        _ => Did::Ended,
    }
}

fn slow_handshake(target: &Target) -> Outcome {
    let Some(mut peer) = Peer::connect(target) else { return not_tried() };
    let request = target.handshake(&"X: slow\r\n".repeat(100_000));
    for byte in request.bytes() {
        if peer.try_say(&[byte]).is_none() || peer.hear() == Heard::End {
            let did = peer.head().map_or(Did::Ended, |head| status(&head));
            return peer.outcome(did, String::new());
        }
        if peer.is_over() {
            break;
        }
        std::thread::sleep(DRIP.saturating_sub(Duration::from_millis(50)));
    }
    peer.outcome(Did::Waits, String::new())
}

fn smuggled(target: &Target) -> Outcome {
    let Some(mut peer) = Peer::connect(target) else { return not_tried() };
    let refused = target.handshake("").replace("Version: 13", "Version: 99");
    peer.say(format!("{refused}{}", target.handshake("")).as_bytes());
    while !peer.is_over() && peer.hear() != Heard::End {
        let answers = peer.heard.windows(9).filter(|part| part == b"HTTP/1.1 ").count();
        if answers > 1 {
            return peer.outcome(Did::Took, "it answered both".to_owned());
        }
    }
    let over = peer.is_over();
    let did = match peer.head() {
        Some(head) if !over => status(&head),
        Some(_) => Did::Waits,
        None => Did::Ended,
    };
    peer.outcome(did, String::new())
}
