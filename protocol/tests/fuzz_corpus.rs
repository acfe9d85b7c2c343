//! What the fuzzer found worth keeping (`fuzz/corpus`), through the functions that it runs.
#![cfg(feature = "deflate")]

use std::fs;
use std::path::Path;

use rstest::rstest;

#[path = "../../fuzz/bodies.rs"]
mod bodies;

#[rstest]
#[case::negotiate("negotiate", bodies::negotiate)]
#[case::inflate("inflate", bodies::inflate)]
#[case::response("response", bodies::response)]
#[case::frame("frame", bodies::frame)]
#[case::iproto_packet("iproto_packet", bodies::iproto_packet)]
#[case::iproto_unpack("iproto_unpack", bodies::iproto_unpack)]
#[case::iproto_connection("iproto_connection", bodies::iproto_connection)]
fn the_corpus_passes(#[case] target: &str, #[case] body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(folder).expect("the corpus is in git") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display()); // the last line that is shown names the culprit
        body(&fs::read(&path).expect("an input"));
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs} inputs of {target}");
}
