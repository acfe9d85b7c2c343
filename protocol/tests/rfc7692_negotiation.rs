//! What RFC 7692 asks of the handshake (sections 5, 5.1 and 7.1), of a server and of a client.

use hioload_protocol::deflate::{Agreement, Direction, Offer, Policy, ResponseFault};
use hioload_protocol::http::client::{Handshake, ResponseError};
use hioload_protocol::http::{Acceptance, Head, HeadLimits, write_accept};
use proptest::prelude::*;
use rstest::rstest;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const fn direction(keeps_context: bool, window_bits: u8) -> Direction {
    Direction { keeps_context, window_bits }
}

/// A server that agrees to everything, and one that keeps nothing.
const GENEROUS: Policy = Policy { server: Direction::DEFAULT, client: Direction::DEFAULT };
const FRUGAL: Policy = Policy { server: Direction::NO_CONTEXT, client: Direction::NO_CONTEXT };
/// A client that offers all, and one that wants a server without memory and with 2^10 bytes.
const OPEN: Offer = Offer { server: Direction::DEFAULT, client: Direction::DEFAULT };
const STRICT: Offer = Offer { server: direction(false, 10), client: direction(true, 12) };

/// The answer to a header as it came over the wire; "" if it has none.
fn answer(policy: Policy, header: &str) -> String {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: {header}\r\n\r\n"
    );
    let head = Head::parse(request.as_bytes(), &HeadLimits::default()).expect("a good head");
    let websocket = head.websocket().expect("a good handshake");
    let agreed = policy.accept(websocket.extensions());
    agreed.map_or_else(String::new, |agreed| agreed.to_string())
}

/// What a client makes of an answer as it came over the wire.
fn check(offer: Option<Offer>, header: &str) -> Result<Option<Agreement>, ResponseError> {
    let key = hioload_protocol::http::accept_key(KEY);
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Extensions: {header}\r\n\r\n",
        str::from_utf8(&key).expect("base64")
    );
    let handshake = Handshake { deflate: offer, ..Handshake::new("a.example", "/", KEY) };
    let accepted = handshake.check_response(response.as_bytes(), &HeadLimits::default())?;
    Ok(accepted.deflate)
}

mod s5_the_server {
    use super::*;

    /// Section 5: the elements are in the client's order of preference.
    #[rstest]
    #[case::one("permessage-deflate", "permessage-deflate")]
    #[case::none("", "")]
    #[case::another("x-webkit-deflate-frame", "")]
    #[case::behind_another("x-other; a=b, permessage-deflate", "permessage-deflate")]
    #[case::the_first_of_two(
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        "permessage-deflate; server_max_window_bits=10"
    )]
    #[case::the_second_if_the_first_is_declined(
        "permessage-deflate; server_max_window_bits=8, permessage-deflate; \
         server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover"
    )]
    #[case::in_two_headers(
        "x-other\r\nSec-WebSocket-Extensions: permessage-deflate",
        "permessage-deflate"
    )]
    #[case::none_that_can_be_had(
        "permessage-deflate; server_max_window_bits=8, permessage-deflate; unknown",
        ""
    )]
    fn s5_the_first_offer_that_can_be_had_is_taken(#[case] header: &str, #[case] expected: &str) {
        assert_eq!(answer(GENEROUS, header), expected);
    }

    /// Section 7: "A server MUST decline an extension negotiation offer if" any of these.
    #[rstest]
    #[case::unknown("unknown")]
    #[case::unknown_with_value("x=1")]
    #[case::no_name("")]
    #[case::no_name_with_value("=10")]
    #[case::other_case("Server_no_context_takeover")]
    #[case::repeated("server_no_context_takeover; server_no_context_takeover")]
    #[case::repeated_bits("client_max_window_bits; client_max_window_bits=10")]
    #[case::repeated_alike("server_max_window_bits=10; server_max_window_bits=10")]
    #[case::value_of_server_no_context("server_no_context_takeover=1")]
    #[case::value_of_client_no_context("client_no_context_takeover=\"\"")]
    #[case::no_value_of_server_bits("server_max_window_bits")]
    #[case::empty("client_max_window_bits=")]
    #[case::empty_quotes("client_max_window_bits=\"\"")]
    #[case::half_quotes("client_max_window_bits=\"10")]
    #[case::one_quote("client_max_window_bits=\"")]
    #[case::other_quotes("client_max_window_bits='10'")]
    #[case::no_number("client_max_window_bits=ten")]
    #[case::too_small("client_max_window_bits=7")]
    #[case::too_large("client_max_window_bits=16")]
    #[case::much_too_large("client_max_window_bits=271")]
    #[case::huge("client_max_window_bits=99999999999999999999999999")]
    #[case::zero("client_max_window_bits=0")]
    #[case::negative("client_max_window_bits=-10")]
    #[case::signed("client_max_window_bits=+10")]
    #[case::hexadecimal("client_max_window_bits=0xA")]
    #[case::leading_zero("client_max_window_bits=010")]
    #[case::leading_zero_in_quotes("server_max_window_bits=\"09\"")]
    #[case::fraction("server_max_window_bits=10.0")]
    #[case::twice("server_max_window_bits=10=10")]
    #[case::space_within("server_max_window_bits=1 0")]
    #[case::other_digits("server_max_window_bits=１０")]
    fn s7_an_offer_with_a_bad_parameter_is_declined(#[case] parameters: &str) {
        assert_eq!(answer(GENEROUS, &format!("permessage-deflate; {parameters}")), "");
        let fallback = format!("permessage-deflate; {parameters}, permessage-deflate");
        assert_eq!(answer(GENEROUS, &fallback), "permessage-deflate");
    }

    #[rstest]
    #[case::no_space("permessage-deflate;server_max_window_bits=10")]
    #[case::much_space("permessage-deflate \t;\t server_max_window_bits\t=  10 ")]
    #[case::quotes("permessage-deflate; server_max_window_bits=\"10\"")]
    fn s5_parameters_are_those_of_rfc_6455_section_9_1(#[case] header: &str) {
        assert_eq!(answer(GENEROUS, header), "permessage-deflate; server_max_window_bits=10");
    }

    /// Section 7.1.1.1: agreeing means to answer with it; it may also come unasked.
    #[rstest]
    #[case::asked(GENEROUS, "permessage-deflate; server_no_context_takeover", true)]
    #[case::not_asked(GENEROUS, "permessage-deflate", false)]
    #[case::unasked(FRUGAL, "permessage-deflate", true)]
    fn s7_1_1_1_server_no_context_takeover(
        #[case] policy: Policy,
        #[case] offer: &str,
        #[case] expected: bool,
    ) {
        let agreed = policy.accept([offer]).expect("nothing to decline");
        assert_eq!(agreed.server.keeps_context, !expected);
        assert_eq!(agreed.to_string().contains("server_no_context_takeover"), expected);
    }

    /// Section 7.1.1.2: a hint of the client, which the server may also demand.
    #[rstest]
    #[case::asked(GENEROUS, "permessage-deflate; client_no_context_takeover", true)]
    #[case::not_asked(GENEROUS, "permessage-deflate", false)]
    #[case::unasked(FRUGAL, "permessage-deflate", true)]
    fn s7_1_1_2_client_no_context_takeover(
        #[case] policy: Policy,
        #[case] offer: &str,
        #[case] expected: bool,
    ) {
        let agreed = policy.accept([offer]).expect("nothing to decline");
        assert_eq!(agreed.client.keeps_context, !expected);
        assert_eq!(agreed.to_string().contains("client_no_context_takeover"), expected);
    }

    /// Section 7.1.2.1: the answer has the same value or a smaller one, or the offer is declined.
    #[rstest]
    fn s7_1_2_1_server_max_window_bits(
        #[values(9, 10, 11, 12, 13, 14, 15)] ours: u8,
        #[values(8, 9, 10, 11, 12, 13, 14, 15)] asked: u8,
    ) {
        let policy = Policy { server: direction(true, ours), ..GENEROUS };
        let offer = format!("permessage-deflate; server_max_window_bits={asked}");
        let agreed = policy.accept([&offer[..]]);
        // 2^8 bytes are less than our compressor can do.
        let expected = (asked >= 9).then_some(asked.min(ours));
        assert_eq!(agreed.map(|agreed| agreed.server.window_bits), expected);
        let unasked = policy.accept(["permessage-deflate"]).expect("nothing to decline");
        assert_eq!(unasked.server.window_bits, ours, "it may come unasked");
    }

    /// Section 7.1.2.2: never in the answer if it is not in the offer; at most what was offered.
    #[rstest]
    fn s7_1_2_2_client_max_window_bits(
        #[values(8, 9, 10, 11, 12, 13, 14, 15)] ours: u8,
        #[values(
            "",
            "; client_max_window_bits",
            "; client_max_window_bits=8",
            "; client_max_window_bits=12",
            "; client_max_window_bits=15"
        )]
        asked: &str,
    ) {
        let policy = Policy { client: direction(true, ours), ..GENEROUS };
        let agreed = policy.accept([&format!("permessage-deflate{asked}")[..]]);
        let agreed = agreed.expect("nothing to decline");
        let expected = match asked.rsplit_once('=') {
            _ if asked.is_empty() => 15,
            Some((_, value)) => ours.min(value.parse().expect("a number")),
            None => ours,
        };
        assert_eq!(agreed.client.window_bits, expected);
        let named = agreed.to_string().contains("client_max_window_bits");
        assert_eq!(named, expected < 15);
        assert!(!named || !asked.is_empty());
    }

    /// The examples of section 7.1.3 and the answers that they allow.
    #[rstest]
    #[case(GENEROUS, "permessage-deflate", "permessage-deflate")]
    #[case(
        GENEROUS,
        "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
        "permessage-deflate; server_max_window_bits=10"
    )]
    #[case(
        GENEROUS,
        "permessage-deflate; client_max_window_bits; server_max_window_bits=10, \
         permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=10"
    )]
    #[case(
        FRUGAL,
        "permessage-deflate; server_no_context_takeover; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    )]
    fn s7_1_3_examples(#[case] policy: Policy, #[case] offer: &str, #[case] expected: &str) {
        assert_eq!(answer(policy, offer), expected);
    }

    #[test]
    fn s5_1_what_was_agreed_is_in_the_response() {
        let agreed = FRUGAL.accept(["permessage-deflate"]);
        let mut out = Vec::new();
        let acceptance = Acceptance { deflate: agreed, ..Acceptance::default() };
        write_accept(&mut out, KEY, &acceptance).expect("nothing unusual");
        let text = String::from_utf8(out).expect("ASCII");
        let line = "\r\nSec-WebSocket-Extensions: permessage-deflate; \
                    server_no_context_takeover; client_no_context_takeover\r\n";
        assert!(text.contains(line), "{text}");
        let mut out = Vec::new();
        write_accept(&mut out, KEY, &Acceptance::default()).expect("nothing unusual");
        assert!(!String::from_utf8(out).expect("ASCII").contains("Extensions"));
    }
}

mod s5_the_client {
    use super::*;

    #[test]
    fn s5_1_the_offer_is_in_the_request() {
        let mut out = Vec::new();
        let handshake = Handshake { deflate: Some(STRICT), ..Handshake::new("a", "/", KEY) };
        handshake.write_request(&mut out).expect("nothing unusual");
        let text = String::from_utf8(out).expect("ASCII");
        let line = "\r\nSec-WebSocket-Extensions: permessage-deflate; \
                    server_no_context_takeover; server_max_window_bits=10; \
                    client_max_window_bits=12\r\n";
        assert!(text.contains(line), "{text}");
    }

    /// Section 5.1: no element in the answer means no compression.
    #[test]
    fn s5_1_no_answer_is_no_compression() {
        assert_eq!(check(Some(OPEN), ""), Ok(None));
        assert_eq!(check(None, ""), Ok(None));
    }

    #[rstest]
    #[case::not_offered(None, "permessage-deflate", ResponseFault::Unoffered)]
    #[case::another(Some(OPEN), "x-other", ResponseFault::Unoffered)]
    #[case::other_case(Some(OPEN), "Permessage-Deflate", ResponseFault::Unoffered)]
    #[case::and_another(Some(OPEN), "permessage-deflate, x-other", ResponseFault::Unoffered)]
    #[case::two(Some(OPEN), "permessage-deflate, permessage-deflate", ResponseFault::Unoffered)]
    #[case::two_headers(
        Some(OPEN),
        "permessage-deflate\r\nsec-websocket-extensions: permessage-deflate",
        ResponseFault::Unoffered
    )]
    fn s5_1_the_client_fails_on_what_it_did_not_offer(
        #[case] offer: Option<Offer>,
        #[case] header: &str,
        #[case] expected: ResponseFault,
    ) {
        assert_eq!(check(offer, header), Err(ResponseError::Extension(expected)));
    }

    /// Section 7: "A client MUST Fail the WebSocket Connection if" any of these.
    #[rstest]
    #[case::unknown("unknown", ResponseFault::Unknown)]
    #[case::no_name("", ResponseFault::Unknown)]
    #[case::repeated(
        "client_no_context_takeover; client_no_context_takeover",
        ResponseFault::Repeated
    )]
    #[case::repeated_bits(
        "server_max_window_bits=9; server_max_window_bits=10",
        ResponseFault::Repeated
    )]
    #[case::flag_with_value("server_no_context_takeover=true", ResponseFault::Value)]
    #[case::bare_server_bits("server_max_window_bits", ResponseFault::Value)]
    #[case::bare_client_bits("client_max_window_bits", ResponseFault::Value)]
    #[case::too_small("server_max_window_bits=7", ResponseFault::Value)]
    #[case::too_large("client_max_window_bits=16", ResponseFault::Value)]
    #[case::leading_zero("client_max_window_bits=09", ResponseFault::Value)]
    fn s7_the_client_fails_on_bad_parameters(
        #[case] parameters: &str,
        #[case] expected: ResponseFault,
    ) {
        let header = format!("permessage-deflate; {parameters}");
        assert_eq!(check(Some(OPEN), &header), Err(ResponseError::Extension(expected)));
    }

    /// Sections 7.1.1.1 and 7.1.2.1: what was asked for must be in the answer.
    #[rstest]
    #[case("permessage-deflate", ResponseFault::KeepsContext)]
    #[case("permessage-deflate; server_max_window_bits=10", ResponseFault::KeepsContext)]
    #[case("permessage-deflate; server_no_context_takeover", ResponseFault::WindowTooLarge)]
    #[case(
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
        ResponseFault::WindowTooLarge
    )]
    fn s7_1_the_client_fails_if_it_did_not_get_what_it_asked(
        #[case] header: &str,
        #[case] expected: ResponseFault,
    ) {
        assert_eq!(check(Some(STRICT), header), Err(ResponseError::Extension(expected)));
    }

    /// Sections 7.1.1 and 7.1.2: a server may be more modest, and ask the client to be.
    #[rstest]
    #[case::as_it_is(OPEN, "", direction(true, 15), direction(true, 15))]
    #[case::no_context(
        OPEN,
        "; server_no_context_takeover; client_no_context_takeover",
        direction(false, 15),
        direction(false, 15)
    )]
    #[case::windows(
        OPEN,
        "; client_max_window_bits=10; server_max_window_bits=\"8\"",
        direction(true, 8),
        direction(true, 10)
    )]
    #[case::asked(
        STRICT,
        "; server_no_context_takeover; server_max_window_bits=10",
        direction(false, 10),
        direction(true, 12)
    )]
    #[case::less(
        STRICT,
        "; server_no_context_takeover; server_max_window_bits=9; \
        client_max_window_bits=11",
        direction(false, 9),
        direction(true, 11)
    )]
    #[case::no_more_than_we_want(
        STRICT,
        "; server_no_context_takeover; \
        server_max_window_bits=10; client_max_window_bits=15",
        direction(false, 10),
        direction(true, 12)
    )]
    fn s7_1_an_answer_may_ask_for_less(
        #[case] offer: Offer,
        #[case] parameters: &str,
        #[case] server: Direction,
        #[case] client: Direction,
    ) {
        let agreed = check(Some(offer), &format!("permessage-deflate{parameters}"));
        let names_server_bits = parameters.contains("server_max_window_bits");
        assert_eq!(agreed, Ok(Some(Agreement { server, client, names_server_bits })));
    }
}

fn any_direction(bits_min: u8) -> impl Strategy<Value = Direction> {
    (any::<bool>(), bits_min..=15).prop_map(|(keeps, bits)| direction(keeps, bits))
}

proptest! {
    /// Whoever asks, and whoever answers: both understand the same.
    #[test]
    fn s7_1_both_sides_agree_on_the_same(
        server in any_direction(9),
        client in any_direction(8),
        wanted_server in any_direction(9),
        wanted_client in any_direction(8),
    ) {
        let policy = Policy { server, client };
        let offer = Offer { server: wanted_server, client: wanted_client };
        let agreed = policy.accept([&offer.to_string()[..]]).expect("nothing to decline");
        prop_assert_eq!(offer.check(&agreed.to_string()), Ok(agreed));
        for (agreed, bounds) in [
            (agreed.server, [server, wanted_server]),
            (agreed.client, [client, wanted_client]),
        ] {
            for bound in bounds {
                prop_assert!(agreed.window_bits <= bound.window_bits);
                prop_assert!(bound.keeps_context || !agreed.keeps_context);
            }
        }
    }
}
