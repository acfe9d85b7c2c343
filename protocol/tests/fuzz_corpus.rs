//! What the fuzzer found worth keeping (`fuzz/corpus`), through the functions that it runs.
#![cfg(feature = "deflate")]

use std::path::Path;

use rstest::rstest;

#[path = "../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../fuzz/replay.rs"]
mod replay;

#[rstest]
#[case::negotiate("negotiate", bodies::negotiate)]
#[case::inflate("inflate", bodies::inflate)]
#[case::response("response", bodies::response)]
#[case::frame("frame", bodies::frame)]
#[case::iproto_packet("iproto_packet", bodies::iproto_packet)]
#[case::iproto_unpack("iproto_unpack", bodies::iproto_unpack)]
#[case::iproto_connection("iproto_connection", bodies::iproto_connection)]
#[case::frame_cuts("frame_cuts", bodies::messages::frame_cuts)]
#[case::assembly("assembly", bodies::messages::assembly)]
#[case::head("head", bodies::heads::head)]
fn the_corpus_passes(#[case] target: &str, #[case] body: fn(&[u8])) {
    replay::replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), target, body);
}
