//! Heads that two parsers could read in two ways (RFC 9112 section 11, RFC 9931), heads that are
//! too large, and what is answered.

use hioload_protocol::http::{Head, HeadLimits, HeadScanner, InvalidHeader, Refusal, Response};
use proptest::prelude::*;
use rstest::rstest;

fn status(bytes: &[u8]) -> u16 {
    Head::parse(bytes, &HeadLimits::default()).map_or_else(|refusal| refusal.status(), |_| 200)
}

/// A good request, with `lines` in it.
fn with(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn limits(bytes_max: usize, headers_max: usize) -> HeadLimits {
    HeadLimits { bytes_max, headers_max }
}

#[rstest]
#[case::content_length("Content-Length: 5\r\n", 413)]
#[case::huge_content_length("Content-Length: 99999999999999999999999\r\n", 413)]
#[case::negative_content_length("Content-Length: -1\r\n", 400)]
#[case::plus_content_length("Content-Length: +5\r\n", 400)]
#[case::hex_content_length("Content-Length: 0x5\r\n", 400)]
#[case::content_length_list("Content-Length: 0, 0\r\n", 400)]
#[case::empty_content_length("Content-Length:\r\n", 400)]
#[case::two_content_lengths("Content-Length: 0\r\nContent-Length: 0\r\n", 400)]
#[case::two_content_lengths_in_any_case("Content-Length: 0\r\ncontent-length: 5\r\n", 400)]
#[case::chunked("Transfer-Encoding: chunked\r\n", 400)]
#[case::identity("Transfer-Encoding: identity\r\n", 400)]
#[case::chunked_in_any_case("transfer-ENCODING: xchunked\r\n", 400)]
#[case::chunked_and_length("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400)]
#[case::two_hosts("Host: a\r\n", 400)]
#[case::two_hosts_in_any_case("host: b\r\n", 400)]
#[case::two_keys("Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: a\r\n", 400)]
#[case::two_versions("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", 400)]
#[case::two_upgrades("Upgrade: websocket\r\nUpgrade: websocket\r\n", 400)]
#[case::two_origins("Origin: http://a\r\nOrigin: http://b\r\n", 400)]
#[case::folded("X-A: b\r\n c\r\n", 400)]
#[case::folded_with_tab("X-A: b\r\n\tc\r\n", 400)]
#[case::folded_empty("X-A: b\r\n \r\n", 400)]
#[case::bare_lf("X-A: b\nX-B: c\r\n", 400)]
#[case::bare_cr("X-A: b\rX-B: c\r\n", 400)]
#[case::double_cr("X-A: b\r\r\n", 400)]
#[case::nul_in_a_value("X-A: b\0c\r\n", 400)]
#[case::nul_in_a_name("X\0A: b\r\n", 400)]
#[case::control_in_a_value("X-A: b\x01c\r\n", 400)]
#[case::delete_in_a_value("X-A: b\x7fc\r\n", 400)]
#[case::space_before_the_colon("Content-Length : 0\r\n", 400)]
#[case::tab_before_the_colon("Content-Length\t: 0\r\n", 400)]
#[case::space_in_a_name("Content Length: 0\r\n", 400)]
#[case::no_name(": b\r\n", 400)]
#[case::no_colon("X-A\r\n", 400)]
#[case::quoted_name("\"X-A\": b\r\n", 400)]
#[case::name_not_ascii("Content-Lengthé: 0\r\n", 400)]
fn a_header_with_two_readings_is_refused(#[case] lines: &str, #[case] expected: u16) {
    assert_eq!(status(&with("")), 200);
    assert_eq!(status(&with(lines)), expected);
}

#[rstest]
#[case::a_value_with_colon("X-A: b: c\r\n")]
#[case::a_value_with_tab("X-A: b\tc\r\n")]
#[case::an_empty_value("X-A:\r\n")]
#[case::a_value_in_utf_8("X-A: Jürgen\r\n")]
#[case::a_repeated_header_that_may_be("Accept: b\r\nAccept: c\r\n")]
#[case::no_body("Content-Length: 0\r\n")]
fn a_header_with_one_reading_is_accepted(#[case] lines: &str) {
    assert_eq!(status(&with(lines)), 200);
}

#[rstest]
#[case::two_spaces("GET  / HTTP/1.1", 400)]
#[case::space_behind("GET / HTTP/1.1 ", 400)]
#[case::tab("GET\t/ HTTP/1.1", 400)]
#[case::no_version("GET /", 400)]
#[case::lower_case_version("GET / http/1.1", 505)]
#[case::http_1_0("GET / HTTP/1.0", 505)]
#[case::http_0_9("GET / HTTP/0.9", 505)]
#[case::http_1_10("GET / HTTP/1.10", 400)]
#[case::http_2_preface("PRI * HTTP/2.0", 505)]
#[case::post("POST / HTTP/1.1", 405)]
#[case::connect("CONNECT a:443 HTTP/1.1", 405)]
#[case::options("OPTIONS * HTTP/1.1", 405)]
#[case::lower_case_method("get / HTTP/1.1", 405)]
#[case::asterisk("GET * HTTP/1.1", 400)]
#[case::relative("GET chat HTTP/1.1", 400)]
#[case::fragment("GET /a#b HTTP/1.1", 400)]
#[case::not_ascii("GET /\u{e9} HTTP/1.1", 400)]
#[case::other_authority("GET http://b/ HTTP/1.1", 400)]
#[case::no_authority("GET http:/// HTTP/1.1", 400)]
#[case::user_in_authority("GET http://x@a/ HTTP/1.1", 400)]
#[case::other_scheme("GET ftp://a/ HTTP/1.1", 400)]
#[case::indented(" GET / HTTP/1.1", 400)]
#[case::empty_line_before("\r\nGET / HTTP/1.1", 400)]
fn a_bad_request_line_is_refused(#[case] line: &str, #[case] expected: u16) {
    assert_eq!(status(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()), expected);
}

#[rstest]
#[case("")]
#[case("a, b")]
#[case("a b")]
#[case("user@a")]
#[case("a/b")]
#[case("a?b")]
#[case("a#b")]
#[case("a\\b")]
#[case("é")]
fn a_host_that_is_none_is_refused(#[case] host: &str) {
    let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert_eq!(status(bytes.as_bytes()), 400);
}

#[test]
fn a_value_that_is_not_utf_8_is_refused() {
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \xff\r\n\r\n"), 400);
}

/// What makes a head malformed is answered when it comes, not when the head ends.
#[rstest]
#[case::bare_lf(b"GET / HTTP/1.1\n")]
#[case::nul(b"GET /\0")]
#[case::tls(b"\x16\x03\x01\x00")]
#[case::folded(b"GET / HTTP/1.1\r\nHost: a\r\n ")]
#[case::bare_cr(b"GET / HTTP/1.1\r\nHost: a\rb")]
#[case::empty_line_before(b"\r\n")]
fn the_scanner_refuses_at_once(#[case] bytes: &[u8]) {
    let mut scanner = HeadScanner::default();
    let (last, before) = bytes.split_last().expect("not empty");
    assert_eq!(scanner.find_end(before, &HeadLimits::default()), Ok(None));
    let refusal = scanner.find_end(bytes, &HeadLimits::default()).expect_err("malformed");
    assert_eq!(refusal.status(), 400, "at {last:#x}");
}

#[test]
fn a_head_of_the_largest_size_is_found_and_one_byte_more_is_refused() {
    let bytes = with("X-A: b\r\n");
    let exact = limits(bytes.len(), 64);
    assert_eq!(HeadScanner::default().find_end(&bytes, &exact), Ok(Some(bytes.len())));
    assert_eq!(Head::parse(&bytes, &exact).map(|head| head.len_bytes()), Ok(bytes.len()));

    let less = limits(bytes.len() - 1, 64);
    let refusal = HeadScanner::default().find_end(&bytes, &less).expect_err("too large");
    assert_eq!(refusal.status(), 431);
    assert_eq!(Head::parse(&bytes, &less).expect_err("too large").status(), 431);
}

/// Refused before its end has come, and whatever follows.
#[test]
fn a_head_without_an_end_is_refused_at_the_limit() {
    let bytes = with(&format!("X-A: {}\r\n", "b".repeat(10_000)));
    let mut scanner = HeadScanner::default();
    assert_eq!(scanner.find_end(&bytes[..8_191], &HeadLimits::default()), Ok(None));
    let refusal = scanner.find_end(&bytes[..8_192], &HeadLimits::default());
    assert_eq!(refusal.map_err(|refusal| refusal.status()), Err(431));
}

#[rstest]
#[case(64, 64, 200)]
#[case(65, 64, 431)]
#[case(2, 1, 431)]
#[case(128, 1_000, 200)]
#[case(129, 1_000, 431)]
fn header_fields_are_counted(#[case] count: usize, #[case] max: usize, #[case] expected: u16) {
    let bytes = with(&"A: b\r\n".repeat(count - 1)); // one is Host
    let limits = limits(8_192, max);
    let parsed = Head::parse(&bytes, &limits).map_or_else(|refusal| refusal.status(), |_| 200);
    assert_eq!(parsed, expected);
    let found = HeadScanner::default().find_end(&bytes, &limits);
    assert_eq!(found.map_or_else(|refusal| refusal.status(), |_| 200), expected);
}

/// tungstenite's CVE-2023-43669: a head that comes byte by byte must not be searched again from
/// its start with each. What was looked at is spoilt here, so that a second look would show.
#[test]
fn a_head_that_trickles_in_is_scanned_once() {
    assert!(size_of::<HeadScanner>() <= 8);
    let mut bytes = with("X-A: b\r\nX-C: d\r\n");
    let mut scanner = HeadScanner::default();
    for end in 1..bytes.len() {
        assert_eq!(scanner.find_end(&bytes[..end], &HeadLimits::default()), Ok(None));
        bytes[end - 1] = 0;
    }
    let end = scanner.find_end(&bytes, &HeadLimits::default());
    assert_eq!(end, Ok(Some(bytes.len())));
}

/// A second request behind the first is not read as part of it, and its bytes are left alone.
#[test]
fn what_follows_the_head_is_left_alone() {
    let first = with("");
    let bytes = [&first[..], b"GET /second HTTP/1.1\r\n\r\n"].concat();
    let head = Head::parse(&bytes, &HeadLimits::default()).expect("a good head");
    assert_eq!((head.path(), head.len_bytes()), ("/", first.len()));
}

/// Every answer that is not an upgrade ends the connection and says its length.
#[rstest]
#[case(400, "HTTP/1.1 400 Bad Request\r\n")]
#[case(403, "HTTP/1.1 403 Forbidden\r\n")]
#[case(431, "HTTP/1.1 431 Request Header Fields Too Large\r\n")]
#[case(505, "HTTP/1.1 505 HTTP Version Not Supported\r\n")]
#[case(200, "HTTP/1.1 500 Internal Server Error\r\n")]
fn a_refusal_is_a_complete_answer(#[case] status: u16, #[case] line: &str) {
    let mut out = Vec::new();
    Refusal::new(status, "the cause").write_to(&mut out);
    let expected = format!(
        "{line}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 10\r\nConnection: close\r\n\r\nthe cause\n"
    );
    assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
}

#[test]
fn a_method_that_is_refused_is_told_the_others() {
    let refusal = Head::parse(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n", &HeadLimits::default());
    let mut out = Vec::new();
    refusal.expect_err("405").write_to(&mut out);
    assert!(String::from_utf8_lossy(&out).contains("\r\nAllow: GET, HEAD\r\n"));
}

mod responses {
    use super::*;

    fn written(response: &Response, head_only: bool) -> String {
        let mut out = Vec::new();
        response.write_to(&mut out, head_only);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn the_answer_to_head_is_that_to_get_without_its_body() {
        let response = Response::html(200, "<p>é</p>");
        let whole = written(&response, false);
        let head = written(&response, true);
        assert!(head.contains("\r\nContent-Length: 9\r\n"), "{head}");
        assert_eq!(whole, head + "<p>é</p>");
        assert_eq!((response.status(), response.body().len()), (200, 9));
    }

    #[test]
    fn an_answer_without_content_has_neither_body_nor_length() {
        let answer = written(&Response::new(204, "ignored"), false);
        assert_eq!(answer, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    }

    #[rstest]
    #[case(101)]
    #[case(99)]
    #[case(1_000)]
    fn a_status_that_ends_no_request_becomes_500(#[case] status: u16) {
        assert_eq!(Response::new(status, "").status(), 500);
    }

    #[test]
    fn the_framing_of_an_answer_cannot_be_changed() {
        for name in ["Connection", "content-length", "Transfer-Encoding", "Upgrade"] {
            let response = Response::new(200, "").header(name, "x");
            assert_eq!(response, Err(InvalidHeader::Reserved));
        }
    }
}

mod targets {
    use super::*;

    fn head(target: &str) -> Vec<u8> {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    }

    #[rstest]
    #[case("/", "/", None)]
    #[case("/a/b", "/a/b", None)]
    #[case("/a?", "/a", Some(""))]
    #[case("/a?b?c", "/a", Some("b?c"))]
    #[case("http://a", "/", None)]
    #[case("https://A?q", "/", Some("q"))]
    #[case("http://a/b?c://d", "/b", Some("c://d"))]
    fn a_target_is_split(#[case] target: &str, #[case] path: &str, #[case] query: Option<&str>) {
        let bytes = head(target);
        let head = Head::parse(&bytes, &HeadLimits::default()).expect("a good head");
        assert_eq!((head.path(), head.query()), (path, query));
    }

    #[rstest]
    #[case("/a%20b", Some("/a b"))]
    #[case("/a+b", Some("/a+b"))]
    #[case("/%C3%a9", Some("/é"))]
    #[case("/%", None)]
    #[case("/%4", None)]
    #[case("/%+1", None)]
    #[case("/%ff", None)]
    #[case("/%00", None)]
    fn a_path_is_decoded(#[case] target: &str, #[case] decoded: Option<&str>) {
        let bytes = head(target);
        let head = Head::parse(&bytes, &HeadLimits::default()).expect("a good head");
        assert_eq!(head.path_decoded().as_deref(), decoded);
    }

    #[rstest]
    #[case("/?a=1&b=2", "b", Some("2"))]
    #[case("/?a=1&a=2", "a", Some("1"))]
    #[case("/?a", "a", Some(""))]
    #[case("/?a=b=c", "a", Some("b=c"))]
    #[case("/?a=b+c%2B", "a", Some("b c+"))]
    #[case("/?%61=1", "a", Some("1"))]
    #[case("/?a=%", "a", None)]
    #[case("/?ab=1", "a", None)]
    #[case("/", "a", None)]
    fn a_query_parameter_is_found(
        #[case] target: &str,
        #[case] name: &str,
        #[case] value: Option<&str>,
    ) {
        let bytes = head(target);
        let head = Head::parse(&bytes, &HeadLimits::default()).expect("a good head");
        assert_eq!(head.query_param(name).as_deref(), value);
    }
}

proptest! {
    /// Wherever a head is cut, the scanner and the parser say what they say of the whole.
    #[test]
    fn cuts_do_not_matter(
        mut bytes in prop::sample::select(vec![
            with("X-A: b\r\nX-C: d\r\n"), with("X-A: b\nc\r\n"), with("X-A: b\r\n c\r\n"),
        ]),
        junk in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        if let Some((at, byte)) = junk {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = HeadScanner::default().find_end(&bytes, &HeadLimits::default());
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut scanner = HeadScanner::default();
        let cut = ends.iter().find_map(|end| {
            scanner.find_end(&bytes[..*end], &HeadLimits::default()).transpose()
        });
        prop_assert_eq!(cut.transpose(), whole.clone());
        if whole.is_err() {
            prop_assert!(Head::parse(&bytes, &HeadLimits::default()).is_err());
        }
    }

    #[test]
    fn garbage_is_no_head(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Head::parse(&bytes, &HeadLimits::default()).is_err());
    }
}
