//! The target of request heads: what is accepted has one reading.

use hioload_protocol::http::client::Handshake;
use hioload_protocol::http::{Acceptance, Head, HeadLimits, HeadScanner, OriginPolicy};

/// Fields that two readers might each believe another one of.
const SINGLE: [&str; 7] = [
    "host",
    "origin",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "sec-websocket-key",
    "sec-websocket-version",
];

/// Request heads: three bytes of settings, then what a client sent.
pub(crate) fn head(data: &[u8]) {
    let Some(([bytes_max, headers_max, cuts], bytes)) = data.split_first_chunk::<3>() else {
        return;
    };
    let limits = HeadLimits {
        bytes_max: 16 + 8 * usize::from(*bytes_max),
        headers_max: usize::from(headers_max % 20),
    };
    let found = HeadScanner::default().find_end(bytes, &limits).map_err(|no| no.status());
    assert_eq!(found, plain_end(bytes, &limits));
    assert_eq!(found_in_pieces(bytes, &limits, 1 + usize::from(*cuts)), found);
    match Head::parse(bytes, &limits) {
        Ok(head) => {
            assert_eq!(found, Ok(Some(head.len_bytes())));
            assert_one_reading(&head, &bytes[..head.len_bytes()], &limits);
            assert_origin(&head);
            assert_upgrade(&head);
        }
        Err(refusal) => {
            let status = refusal.status();
            assert!(matches!(status, 400 | 405 | 413 | 431 | 505), "{refusal}");
            let mut answer = Vec::new();
            refusal.write_to(&mut answer);
            let answer = String::from_utf8(answer).expect("an answer is text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")));
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        }
    }
}

/// Where the head ends, found in the plainest way; or the status that refuses it.
fn plain_end(bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, u16> {
    let (mut fields, mut line_at) = (0, 0);
    for (at, byte) in bytes.iter().enumerate().take(limits.bytes_max) {
        let follows_cr = at > line_at && bytes[at - 1] == b'\r';
        match byte {
            0 => return Err(400),
            b' ' | b'\t' if at == line_at => return Err(400),
            b'\n' if follows_cr => {
                match (at - line_at == 1, line_at == 0) {
                    (true, true) => return Err(400),
                    (true, false) => return Ok(Some(at + 1)),
                    (false, first) => fields += usize::from(!first),
                }
                if fields > limits.headers_max {
                    return Err(431);
                }
                line_at = at + 1;
            }
            b'\n' => return Err(400),
            _ if follows_cr => return Err(400),
            _ => {}
        }
    }
    if bytes.len() >= limits.bytes_max { Err(431) } else { Ok(None) }
}

fn found_in_pieces(
    bytes: &[u8],
    limits: &HeadLimits,
    piece_bytes: usize,
) -> Result<Option<usize>, u16> {
    let mut scanner = HeadScanner::default();
    for end in (0..bytes.len()).step_by(piece_bytes).chain([bytes.len()]) {
        match scanner.find_end(&bytes[..end], limits) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(refusal) => return Err(refusal.status()),
        }
    }
    Ok(None)
}

/// The head is what a reader sees who only splits at line ends and colons.
fn assert_one_reading(head: &Head<'_>, bytes: &[u8], limits: &HeadLimits) {
    let text = str::from_utf8(bytes).expect("what is accepted is text");
    let text = text.strip_suffix("\r\n\r\n").expect("an empty line ends it");
    let mut lines = text.split("\r\n");
    let line = lines.next().expect("there is a first line");
    assert_eq!(line, format!("{} {} HTTP/1.1", head.method(), head.target()));
    assert!(matches!(head.method(), "GET" | "HEAD"));
    assert!(head.path().starts_with('/') && !head.target().contains(['#', ' ']));
    assert!(!head.path_decoded().is_some_and(|path| path.contains('\0')));

    let fields: Vec<_> = lines.map(|line| line.split_once(':').expect("a field")).collect();
    assert!(fields.len() <= limits.headers_max);
    let seen: Vec<_> = head.headers().collect();
    let plain = fields.iter().map(|(name, value)| (*name, value.trim_matches([' ', '\t'])));
    assert_eq!(seen, plain.collect::<Vec<_>>());
    for (name, value) in &seen {
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':'));
        assert!(!value.contains(['\r', '\n', '\0', '\x7f']));
    }
    for single in SINGLE {
        let count = seen.iter().filter(|(name, _)| name.eq_ignore_ascii_case(single)).count();
        let max = usize::from(single != "transfer-encoding");
        assert!(count <= max, "{count} times {single}");
    }
    assert_eq!(head.header("HOST"), Some(head.host()));
    assert!(matches!(head.header("content-length"), None | Some("0")));
    if let Some(query) = head.query() {
        let name = query.split(['=', '&']).next().unwrap_or_default();
        let _ = head.query_param(name);
        assert!(head.target().ends_with(query));
    }
}

/// Of the pages that name an origin, those of the same host and port get in.
fn assert_origin(head: &Head<'_>) {
    let policy = OriginPolicy::default();
    let strict = OriginPolicy { require: true, ..policy.clone() };
    let is_let_in = policy.check(head).is_ok();
    assert_eq!(strict.check(head).is_ok(), is_let_in && head.origin().is_some());
    let Some(origin) = head.origin() else { return assert!(is_let_in) };
    let origin = origin.to_ascii_lowercase();
    let host = head.host().to_ascii_lowercase();
    let same = [("http://", ":80"), ("https://", ":443")].iter().any(|(scheme, port)| {
        let bare = host.strip_suffix(port).unwrap_or(&host);
        origin == format!("{scheme}{bare}") || origin == format!("{scheme}{bare}{port}")
    });
    assert_eq!(is_let_in, same, "{origin} at {host}");
}

/// An upgrade that is accepted is answered with what a client accepts.
fn assert_upgrade(head: &Head<'_>) {
    let Ok(request) = head.websocket() else { return };
    assert_eq!((head.method(), head.header("sec-websocket-version")), ("GET", Some("13")));
    let (digits, padding) = request.key().split_at(22);
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    assert!(
        padding == "==" && digits.bytes().all(is_digit) && digits.ends_with(['A', 'Q', 'g', 'w'])
    );
    let offered: Vec<_> = request.subprotocols().collect();
    let subprotocol = offered.last().copied();
    assert_eq!(request.choose_subprotocol(subprotocol.as_slice()), subprotocol);
    let mut answer = Vec::new();
    let acceptance = Acceptance { subprotocol, ..Acceptance::default() };
    request.accept(&mut answer, &acceptance).expect("what was offered may be chosen");
    let client =
        Handshake { subprotocols: &offered, ..Handshake::new("a.example", "/", request.key()) };
    let accepted = client.check_response(&answer, &HeadLimits::default());
    let accepted = accepted.expect("our client takes what our server answers");
    assert_eq!(accepted.subprotocol.as_deref(), subprotocol);
    assert_eq!(accepted.len_bytes, answer.len());
}
