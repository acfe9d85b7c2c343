//! What the fuzzer found worth keeping (`fuzz/corpus`), through the functions that it runs.

use std::path::Path;

use rstest::rstest;

#[path = "../../fuzz/replay.rs"]
mod replay;
#[path = "../../fuzz/server.rs"]
mod server;

#[rstest]
#[case::config("config", server::config)]
#[case::session("session", server::session::session)]
#[case::shard("shard", server::shard::shard)]
fn the_corpus_passes(#[case] target: &str, #[case] body: fn(&[u8])) {
    replay::replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), target, body);
}
