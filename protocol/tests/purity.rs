//! The crate needs no operating system, and has no unsafe code: `#![no_std]` and
//! `#![forbid(unsafe_code)]` make the compiler prove it, as long as they stand.

use std::fs;
use std::path::Path;
use std::process::Command;

fn sources(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a folder of this crate") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, visit);
        } else {
            visit(&path, &fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn the_compiler_is_told_to_refuse_std_and_unsafe_code() {
    let lib = include_str!("../src/lib.rs");
    assert!(lib.lines().any(|line| line == "#![no_std]"));
    assert!(lib.lines().any(|line| line == "#![forbid(unsafe_code)]"));

    let mut files = 0;
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        files += 1;
        assert!(!text.contains("extern crate std"), "{} brings std in", path.display());
    });
    assert!(files > 20, "{files} files were looked at");
}

/// No dependency is built with `std` unless our feature of that name asks for it.
#[test]
fn no_dependency_needs_std() {
    let plain = packages_with_std(&[]);
    assert_eq!(plain, Vec::<String>::new());
    let with_std = packages_with_std(&["--features", "std"]);
    assert_eq!(with_std, ["hioload-protocol", "simdutf8"], "it would show");
}

/// The packages that are built with a feature `std`, as cargo resolves them.
fn packages_with_std(options: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "--no-dedupe", "--format", "{f} {p}"])
        .args(["-p", env!("CARGO_PKG_NAME"), "-e", "normal,no-proc-macro"])
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs this test, so it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(tree.contains("httparse v"), "{tree}");
    let with_std = tree.lines().filter_map(|line| {
        let (features, package) = line.split_once(' ')?;
        let name = package.split(' ').next()?;
        features.split(',').any(|feature| feature == "std").then(|| name.to_owned())
    });
    with_std.collect()
}
