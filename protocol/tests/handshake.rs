//! Every MUST of RFC 6455 section 4, both sides, and section 10.2 on origins.

use hioload_protocol::deflate::ResponseFault;
use hioload_protocol::http::client::{Handshake, ResponseError, encode_key};
use hioload_protocol::http::{
    Acceptance, Head, HeadLimits, HeadScanner, InvalidHeader, OriginPolicy, Refusal, Response,
    accept_key, write_accept,
};
use rstest::rstest;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The handshake of section 1.3, with `old` replaced.
fn request(old: &str, new: &str) -> Vec<u8> {
    let request = "GET /chat HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Version: 13\r\n\
        \r\n";
    assert!(request.contains(old), "{old:?} is nothing to replace");
    request.replacen(old, new, 1).into_bytes()
}

/// The status with which a request is refused as a WebSocket handshake; 101 if it is not.
fn judge(bytes: &[u8]) -> u16 {
    let head = match Head::parse(bytes, &HeadLimits::default()) {
        Ok(head) => head,
        Err(refusal) => return refusal.status(),
    };
    head.websocket().map_or_else(|refusal| refusal.status(), |_| 101)
}

fn written(refusal: &Refusal) -> String {
    let mut out = Vec::new();
    refusal.write_to(&mut out);
    String::from_utf8(out).expect("ASCII")
}

mod s4_2_1_reading_the_clients_handshake {
    use super::*;

    #[rstest]
    #[case::as_in_the_rfc("Host", "Host")]
    #[case::upgrade_in_any_case("websocket", "WebSocket")]
    #[case::upgrade_in_a_list("websocket", "h2c, websocket")]
    #[case::connection_in_any_case(": Upgrade", ": upgrade")]
    #[case::connection_in_a_list(": Upgrade", ": keep-alive, Upgrade")]
    #[case::connection_twice("Connection: ", "Connection: keep-alive\r\nConnection: ")]
    #[case::names_in_any_case("Sec-WebSocket-Key", "sec-websocket-KEY")]
    #[case::no_space_after_the_colon(": 13", ":13")]
    #[case::space_around_the_value(": 13", ": \t 13 \t")]
    #[case::absolute_target("/chat", "http://server.example.com/chat")]
    #[case::absolute_target_without_path("/chat", "HTTP://server.example.com")]
    #[case::empty_body("Host", "Content-Length: 0\r\nHost")]
    #[case::no_subprotocol("Sec-WebSocket-Protocol: chat, superchat\r\n", "")]
    #[case::subprotocols_in_two_headers("chat, superchat", "chat\r\nSec-WebSocket-Protocol: b")]
    #[case::empty_list_elements("chat, superchat", ", chat,,")]
    #[case::an_extension("Host", "Sec-WebSocket-Extensions: permessage-deflate; a=\"b\"\r\nHost")]
    fn s4_2_1_a_good_handshake_is_accepted(#[case] old: &str, #[case] new: &str) {
        assert_eq!(judge(&request(old, new)), 101);
    }

    #[rstest]
    #[case::s1_post("GET", "POST", 405)]
    #[case::s1_head("GET", "HEAD", 405)]
    #[case::s1_lower_case("GET", "get", 405)]
    #[case::s1_http_1_0("HTTP/1.1", "HTTP/1.0", 505)]
    #[case::s1_http_2("HTTP/1.1", "HTTP/2.0", 505)]
    #[case::s2_no_host("Host: server.example.com\r\n", "", 400)]
    #[case::s3_no_upgrade("Upgrade: websocket\r\n", "", 426)]
    #[case::s3_another_upgrade("websocket", "h2c", 426)]
    #[case::s3_half_a_token("websocket", "websockets", 426)]
    #[case::s4_no_connection("Connection: Upgrade\r\n", "", 400)]
    #[case::s4_another_connection(": Upgrade", ": keep-alive", 400)]
    #[case::s5_no_key("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400)]
    #[case::s5_empty_key("dGhlIHNhbXBsZSBub25jZQ==", "", 400)]
    #[case::s5_short_key("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400)]
    #[case::s5_18_bytes("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSEh", 400)]
    #[case::s5_17_bytes("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSE=", 400)]
    #[case::s5_not_base64("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j*Q==", 400)]
    #[case::s5_not_padded("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQAA=", 400)]
    #[case::s6_no_version("Sec-WebSocket-Version: 13\r\n", "", 426)]
    #[case::s6_old_version(": 13", ": 8", 426)]
    #[case::s6_next_version(": 13", ": 14", 426)]
    #[case::s6_a_list(": 13", ": 13, 8", 426)]
    #[case::s8_subprotocol_no_token("superchat", "super chat", 400)]
    #[case::s8_subprotocol_twice("superchat", "chat", 400)]
    fn s4_2_1_a_bad_handshake_is_refused(
        #[case] old: &str,
        #[case] new: &str,
        #[case] status: u16,
    ) {
        assert_eq!(judge(&request(old, new)), status);
    }

    #[test]
    fn s4_2_1_the_request_is_given_as_it_came() {
        let bytes = request("Host", "Sec-WebSocket-Extensions: a; b=1, c\r\nHost");
        let head = Head::parse(&bytes, &HeadLimits::default()).expect("a good head");
        assert!(head.is_upgrade());
        assert_eq!(
            (head.method(), head.target(), head.host()),
            ("GET", "/chat", "server.example.com")
        );
        assert_eq!(head.len_bytes(), bytes.len());
        let websocket = head.websocket().expect("a good handshake");
        assert_eq!(websocket.key(), KEY);
        assert_eq!(websocket.subprotocols().collect::<Vec<_>>(), ["chat", "superchat"]);
        assert_eq!(websocket.extensions().collect::<Vec<_>>(), ["a; b=1", "c"]);
    }

    /// A handshake whose Upgrade header a proxy removed is still recognised as one, to be refused.
    #[rstest]
    #[case::as_it_should_be("Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n", true)]
    #[case::without_a_key("Upgrade: WebSocket\r\n", true)]
    #[case::without_upgrade("Sec-WebSocket-Key: x\r\n", true)]
    #[case::another_protocol("Upgrade: h2c\r\n", false)]
    #[case::plain("", false)]
    fn is_upgrade(#[case] lines: &str, #[case] expected: bool) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let head = Head::parse(bytes.as_bytes(), &HeadLimits::default()).expect("a good head");
        assert_eq!(head.is_upgrade(), expected);
    }
}

mod s4_2_2_sending_the_servers_handshake {
    use super::*;

    #[test]
    fn s4_2_2_the_response_has_all_its_headers() {
        let mut out = b"before".to_vec();
        let cookie = [("Set-Cookie", "id=1; Secure")];
        write_accept(
            &mut out,
            KEY,
            &Acceptance { subprotocol: Some("chat"), headers: &cookie, ..Acceptance::default() },
        )
        .expect("good headers");
        let expected = "beforeHTTP/1.1 101 Switching Protocols\r\n\
            Upgrade: websocket\r\n\
            Connection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: chat\r\n\
            Set-Cookie: id=1; Secure\r\n\
            \r\n";
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
    }

    #[test]
    fn s4_2_2_without_a_subprotocol_there_is_no_header_for_it() {
        let mut out = Vec::new();
        write_accept(&mut out, KEY, &Acceptance::default()).expect("nothing to refuse");
        assert!(!String::from_utf8_lossy(&out).contains("Protocol:"));
    }

    #[rstest]
    #[case(&["superchat", "chat"], Some("chat"))]
    #[case(&["superchat"], Some("superchat"))]
    #[case(&["Chat"], None)]
    #[case(&[], None)]
    fn s4_2_2_the_subprotocol_is_one_that_was_offered(
        #[case] supported: &[&str],
        #[case] expected: Option<&str>,
    ) {
        let bytes = request("Host", "Host");
        let head = Head::parse(&bytes, &HeadLimits::default()).expect("a good head");
        let websocket = head.websocket().expect("a good handshake");
        assert_eq!(websocket.choose_subprotocol(supported), expected);
    }

    #[rstest]
    #[case::split(None, ("X-A", "a\r\nSet-Cookie: b"), InvalidHeader::Value)]
    #[case::bare_lf(None, ("X-A", "a\nb"), InvalidHeader::Value)]
    #[case::nul(None, ("X-A", "a\0"), InvalidHeader::Value)]
    #[case::space_around(None, ("X-A", " a"), InvalidHeader::Value)]
    #[case::name_with_colon(None, ("X:A", "a"), InvalidHeader::NotAToken)]
    #[case::name_with_line(None, ("X\r\nA", "a"), InvalidHeader::NotAToken)]
    #[case::empty_name(None, ("", "a"), InvalidHeader::NotAToken)]
    #[case::handshake(None, ("sec-websocket-accept", "a"), InvalidHeader::Reserved)]
    #[case::framing(None, ("Content-Length", "5"), InvalidHeader::Reserved)]
    #[case::subprotocol(Some("a\r\nb: c"), ("X-A", "a"), InvalidHeader::NotAToken)]
    fn headers_cannot_change_the_response(
        #[case] subprotocol: Option<&str>,
        #[case] header: (&str, &str),
        #[case] expected: InvalidHeader,
    ) {
        let mut out = Vec::new();
        assert_eq!(
            write_accept(
                &mut out,
                KEY,
                &Acceptance { subprotocol, headers: &[header], ..Acceptance::default() }
            ),
            Err(expected)
        );
        assert_eq!(out, b"", "nothing was written");
        if subprotocol.is_none() {
            let response = Response::text(200, "").header(header.0, header.1);
            assert_eq!(response, Err(expected));
        }
    }
}

/// Section 4.4: the version that we speak is named, and the connection closed.
#[test]
fn s4_4_another_version_is_told_which_one_is_spoken() {
    let bytes = request(": 13", ": 12");
    let head = Head::parse(&bytes, &HeadLimits::default()).expect("a good head");
    let answer = written(&head.websocket().expect_err("of another version"));
    assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
    assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
    assert!(answer.contains("\r\nUpgrade: websocket\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: Upgrade, close\r\n"), "{answer}");
}

mod s10_2_origin {
    use super::*;

    #[rstest]
    #[case::same("example.com", Some("https://example.com"), true)]
    #[case::same_without_tls("example.com", Some("http://example.com"), true)]
    #[case::same_in_any_case("Example.COM", Some("https://example.com"), true)]
    #[case::same_port("example.com:8080", Some("http://example.com:8080"), true)]
    #[case::default_port_in_host("example.com:443", Some("https://example.com"), true)]
    #[case::default_port_in_origin("example.com", Some("http://example.com:80"), true)]
    #[case::ipv6("[::1]:9001", Some("http://[::1]:9001"), true)]
    #[case::absent("example.com", None, true)]
    #[case::listed("example.com", Some("https://app.example.org"), true)]
    #[case::another("example.com", Some("https://evil.example"), false)]
    #[case::another_port("example.com", Some("http://example.com:8080"), false)]
    #[case::port_of_the_other_scheme("example.com:443", Some("http://example.com"), false)]
    #[case::subdomain("example.com", Some("https://a.example.com"), false)]
    #[case::suffix("example.com", Some("https://evilexample.com"), false)]
    #[case::prefix("example.com", Some("https://example.com.evil"), false)]
    #[case::user("example.com", Some("https://example.com@evil.example"), false)]
    #[case::path("example.com", Some("https://example.com/"), false)]
    #[case::null("example.com", Some("null"), false)]
    #[case::empty("example.com", Some(""), false)]
    #[case::no_scheme("example.com", Some("example.com"), false)]
    #[case::file("example.com", Some("file://example.com"), false)]
    #[case::listed_but_longer("example.com", Some("https://app.example.org.evil"), false)]
    fn s10_2_pages_of_other_origins_are_refused(
        #[case] host: &str,
        #[case] origin: Option<&str>,
        #[case] allowed: bool,
    ) {
        let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n");
        let head = Head::parse(bytes.as_bytes(), &HeadLimits::default()).expect("a good head");
        let listed = vec!["https://app.example.org".to_owned()];
        let policy = OriginPolicy { allowed: listed, require: false };
        let expected = if allowed { Ok(()) } else { Err(403) };
        assert_eq!(policy.check(&head).map_err(|refusal| refusal.status()), expected);
    }

    #[test]
    fn s10_2_an_origin_may_be_required() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = Head::parse(head, &HeadLimits::default()).expect("a good head");
        let policy = OriginPolicy { allowed: vec!["*".into()], require: true };
        assert_eq!(policy.check(&head).map_err(|refusal| refusal.status()), Err(403));
    }

    #[rstest]
    #[case("*", "null", true)]
    #[case("*", "https://any.example", true)]
    #[case("null", "null", true)]
    #[case("null", "https://any.example", false)]
    fn s10_2_any_origin_may_be_allowed(
        #[case] listed: &str,
        #[case] origin: &str,
        #[case] allowed: bool,
    ) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n");
        let head = Head::parse(bytes.as_bytes(), &HeadLimits::default()).expect("a good head");
        let policy = OriginPolicy { allowed: vec![listed.into()], require: false };
        assert_eq!(policy.check(&head).is_ok(), allowed);
    }
}

mod s4_1_client {
    use super::*;

    const HANDSHAKE: Handshake<'_> = Handshake {
        host: "server.example.com:9001",
        target: "/chat?a=b",
        key: KEY,
        deflate: None,
        origin: Some("https://example.com"),
        subprotocols: &["chat", "superchat"],
        headers: &[("Cookie", "id=1")],
    };

    #[test]
    fn s4_1_the_request_has_all_its_headers() {
        let mut out = Vec::new();
        HANDSHAKE.write_request(&mut out).expect("good headers");
        let expected = "GET /chat?a=b HTTP/1.1\r\n\
            Host: server.example.com:9001\r\n\
            Upgrade: websocket\r\n\
            Connection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\
            Origin: https://example.com\r\n\
            Sec-WebSocket-Protocol: chat, superchat\r\n\
            Cookie: id=1\r\n\
            \r\n";
        assert_eq!(String::from_utf8(out.clone()).as_deref(), Ok(expected));
        assert_eq!(judge(&out), 101, "our server accepts it");
    }

    #[test]
    fn s4_1_the_key_is_sixteen_bytes_in_base64() {
        assert_eq!(encode_key(*b"the sample nonce"), KEY);
    }

    #[rstest]
    #[case::host_with_line(Handshake { host: "a\r\nX: y", ..HANDSHAKE })]
    #[case::host_with_user(Handshake { host: "user@a", ..HANDSHAKE })]
    #[case::empty_host(Handshake { host: "", ..HANDSHAKE })]
    #[case::relative_target(Handshake { target: "chat", ..HANDSHAKE })]
    #[case::target_with_fragment(Handshake { target: "/chat#x", ..HANDSHAKE })]
    #[case::target_with_space(Handshake { target: "/ HTTP/1.1", ..HANDSHAKE })]
    #[case::junk_key(Handshake { key: "junk", ..HANDSHAKE })]
    #[case::origin_with_line(Handshake { origin: Some("a\nb"), ..HANDSHAKE })]
    #[case::repeated_subprotocol(Handshake { subprotocols: &["a", "a"], ..HANDSHAKE })]
    #[case::subprotocol_no_token(Handshake { subprotocols: &["a b"], ..HANDSHAKE })]
    #[case::second_host(Handshake { headers: &[("host", "b")], ..HANDSHAKE })]
    #[case::second_origin(Handshake { headers: &[("origin", "b")], ..HANDSHAKE })]
    #[case::second_key(Handshake { headers: &[("Sec-WebSocket-Key", "b")], ..HANDSHAKE })]
    fn s4_1_a_bad_request_is_not_written(#[case] handshake: Handshake<'_>) {
        let mut out = Vec::new();
        assert!(handshake.write_request(&mut out).is_err());
        assert_eq!(out, b"", "nothing was written");
    }

    fn response(old: &str, new: &str) -> Vec<u8> {
        let response = "HTTP/1.1 101 Switching Protocols\r\n\
            Upgrade: websocket\r\n\
            Connection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: chat\r\n\
            \r\n";
        assert!(response.contains(old), "{old:?} is nothing to replace");
        response.replacen(old, new, 1).into_bytes()
    }

    #[rstest]
    #[case::as_in_the_rfc("Upgrade", "Upgrade", Some("chat"))]
    #[case::in_any_case("websocket", "WebSocket", Some("chat"))]
    #[case::connection_list(": Upgrade", ": foo, upgrade", Some("chat"))]
    #[case::no_subprotocol("Sec-WebSocket-Protocol: chat\r\n", "", None)]
    #[case::another_reason("Switching Protocols", "OK", Some("chat"))]
    fn s4_1_a_good_response_opens(
        #[case] old: &str,
        #[case] new: &str,
        #[case] subprotocol: Option<&str>,
    ) {
        let mut bytes = response(old, new);
        let len = bytes.len();
        bytes.extend_from_slice(b"\x81\x02hi");
        let accepted = HANDSHAKE.check_response(&bytes, &HeadLimits::default()).expect("good");
        assert_eq!(accepted.subprotocol.as_deref(), subprotocol);
        assert_eq!(accepted.len_bytes, len, "the frame behind it is left alone");
    }

    #[rstest]
    #[case::status("101", "200", ResponseError::Status(200))]
    #[case::redirect("101", "302", ResponseError::Status(302))]
    #[case::no_upgrade("Upgrade: websocket\r\n", "", ResponseError::Upgrade)]
    #[case::another_upgrade("websocket", "h2c", ResponseError::Upgrade)]
    #[case::no_connection("Connection: Upgrade\r\n", "", ResponseError::Connection)]
    #[case::another_connection(": Upgrade", ": close", ResponseError::Connection)]
    #[case::wrong_accept("s3pP", "S3pP", ResponseError::Accept)]
    #[case::no_accept("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "X: y", ResponseError::Accept)]
    #[case::two_accepts(
        "Upgrade: w",
        "Sec-WebSocket-Accept: x\r\nUpgrade: w",
        ResponseError::Accept
    )]
    #[case::extension(
        "Upgrade: w",
        "Sec-WebSocket-Extensions: x\r\nUpgrade: w",
        ResponseError::Extension(ResponseFault::Unoffered)
    )]
    #[case::subprotocol(": chat", ": unasked", ResponseError::Subprotocol)]
    #[case::two_subprotocols(": chat", ": chat, superchat", ResponseError::Subprotocol)]
    #[case::repeated_subprotocol(
        ": chat",
        ": chat\r\nSec-WebSocket-Protocol: chat",
        ResponseError::Subprotocol
    )]
    fn s4_1_a_bad_response_fails(
        #[case] old: &str,
        #[case] new: &str,
        #[case] expected: ResponseError,
    ) {
        let result = HANDSHAKE.check_response(&response(old, new), &HeadLimits::default());
        assert_eq!(result, Err(expected));
    }

    #[rstest]
    #[case::http_1_0("HTTP/1.1", "HTTP/1.0")]
    #[case::bare_lf("websocket\r\n", "websocket\n")]
    #[case::folded("Connection: ", "Connection:\r\n ")]
    #[case::space_before_the_colon("Connection:", "Connection :")]
    fn s4_1_a_malformed_response_fails(#[case] old: &str, #[case] new: &str) {
        let result = HANDSHAKE.check_response(&response(old, new), &HeadLimits::default());
        assert!(matches!(result, Err(ResponseError::Malformed(_))), "{result:?}");
    }

    /// Both sides of this crate understand each other, byte by byte.
    #[test]
    fn client_and_server_agree() {
        let mut asked = Vec::new();
        HANDSHAKE.write_request(&mut asked).expect("good headers");
        let head = Head::parse(&asked, &HeadLimits::default()).expect("a good head");
        let websocket = head.websocket().expect("a good handshake");
        let mut answer = Vec::new();
        let chosen = websocket.choose_subprotocol(&["superchat"]);
        websocket
            .accept(&mut answer, &Acceptance { subprotocol: chosen, ..Acceptance::default() })
            .expect("good headers");

        let mut scanner = HeadScanner::default();
        for end in 0..answer.len() {
            assert_eq!(scanner.find_end(&answer[..end], &HeadLimits::default()), Ok(None));
        }
        let end = scanner.find_end(&answer, &HeadLimits::default());
        assert_eq!(end, Ok(Some(answer.len())));
        let accepted = HANDSHAKE.check_response(&answer, &HeadLimits::default());
        assert_eq!(accepted.expect("accepted").subprotocol.as_deref(), Some("superchat"));
        assert_eq!(accept_key(KEY), *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

/// RFC 9110 section 15: the phrases are of no use to programs, and of some to people.
#[rstest]
#[case(200, "OK")]
#[case(201, "Created")]
#[case(202, "Accepted")]
#[case(204, "No Content")]
#[case(301, "Moved Permanently")]
#[case(302, "Found")]
#[case(303, "See Other")]
#[case(304, "Not Modified")]
#[case(307, "Temporary Redirect")]
#[case(308, "Permanent Redirect")]
#[case(406, "Not Acceptable")]
#[case(408, "Request Timeout")]
#[case(409, "Conflict")]
#[case(410, "Gone")]
#[case(414, "URI Too Long")]
#[case(421, "Misdirected Request")]
#[case(429, "Too Many Requests")]
#[case(501, "Not Implemented")]
#[case(502, "Bad Gateway")]
#[case(504, "Gateway Timeout")]
#[case::of_nobody(299, "")]
fn a_status_has_its_phrase(#[case] status: u16, #[case] phrase: &str) {
    let mut out = Vec::new();
    Response::json(status, "{}").write_to(&mut out, false);
    let written = String::from_utf8(out).expect("ASCII");
    assert!(written.starts_with(&format!("HTTP/1.1 {status} {phrase}\r\n")), "{written}");
    assert!(written.contains("Content-Type: application/json\r\n"), "{written}");
    // RFC 9110 sections 8.6 and 15.4.5: these have no body, and 204 has no length of one.
    let has_body = !matches!(status, 204 | 304);
    assert_eq!(written.ends_with("\r\n\r\n{}"), has_body, "{written}");
    assert_eq!(written.contains("Content-Length: 2\r\n"), status != 204, "{written}");
}
