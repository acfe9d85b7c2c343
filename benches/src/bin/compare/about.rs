//! What figures are worth nothing without: the machine, the kernel, the versions.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use hioload_benches::machine::{CONGESTION_CONTROL, Cores, LOAD_AVERAGE, read_word};
use serde_json::{Value, json};

/// What does not change during a run.
pub(crate) fn about(cores: Cores, network: &str) -> Value {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let governor =
        |core| read_word(&format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"));
    json!({
        "unix_time": time,
        "arguments": env::args().skip(1).collect::<Vec<_>>(),
        "commit": commit(own_folder()),
        "version": env!("CARGO_PKG_VERSION"),
        "rustc": first_line(Command::new("rustc").arg("--version")),
        "kernel": read_word("/proc/sys/kernel/osrelease"),
        "cpu": cpu_model(),
        "cpus": read_word("/sys/devices/system/cpu/online"),
        "server_core": cores.servers,
        "load_core": cores.clients,
        "server_governor": governor(cores.servers),
        "load_governor": governor(cores.clients),
        "network": network,
        "congestion_control": read_word(CONGESTION_CONTROL),
        "load_average": read_word(LOAD_AVERAGE),
        "profile": "Rust: opt-level 3, thin LTO, one codegen unit; C++: -O3 -march=native and LTO",
    })
}

/// The folder of this package.
pub(crate) fn own_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The commit that is checked out in a folder, with `-dirty` if something was changed.
pub(crate) fn commit(folder: &Path) -> String {
    let mut git = Command::new("git");
    first_line(git.arg("-C").arg(folder).args(["describe", "--always", "--tags", "--dirty"]))
}

/// The first line that a program prints, or "unknown".
pub(crate) fn first_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.ok().and_then(|text| text.lines().next().map(|line| line.trim().to_owned()));
    line.filter(|line| !line.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
    model.unwrap_or_else(|| "unknown".to_owned())
}
