//! What the fuzzer found worth keeping (`fuzz/corpus`), through the functions that it runs.

use std::fs;
use std::path::Path;

/// Runs `body` with every input in git of a target. `project` is the root of the project.
pub(crate) fn replay(project: &Path, target: &str, body: fn(&[u8])) {
    let mut inputs = 0;
    for entry in fs::read_dir(project.join("fuzz/corpus").join(target)).expect("it is in git") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display()); // the last line that is shown names the culprit
        body(&fs::read(&path).expect("an input"));
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs} inputs of {target}");
}
