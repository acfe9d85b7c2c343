//! A network of its own for a run: nothing but a loopback, with a congestion control that does not
//! pace what is sent.

use std::fs;
use std::process::Command;

use crate::machine::{CONGESTION_CONTROL, read_word};
use rustix::process::geteuid;
use rustix::thread::UnshareFlags;

/// What a loopback is measured with: bbr paces and costs time, reno does neither.
const WANTED: &str = "reno";

/// Leaves the network of the machine for one of its own, if it may; says what the network is.
///
/// All processes that are started from then on are in it too.
///
/// # Errors
/// There is none: what to do.
pub fn isolate(host_network: bool) -> Result<String, String> {
    if host_network {
        return Ok(format!("the machine's, with {}", read_word(CONGESTION_CONTROL)));
    }
    if !geteuid().is_root() {
        return Ok(format!(
            "the machine's, with {}: only root gets one of its own",
            read_word(CONGESTION_CONTROL)
        ));
    }
    leave().map_err(|problem| {
        format!("no network of its own: {problem}; --host-network stays in the machine's")
    })?;
    Ok(format!("one of its own, with {}", read_word(CONGESTION_CONTROL)))
}

fn leave() -> Result<(), String> {
    unshare().map_err(|error| error.to_string())?;
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let status = status.map_err(|error| format!("ip (iproute2) does not start: {error}"))?;
    if !status.success() {
        return Err(format!("ip link set lo up: {status}"));
    }
    fs::write(CONGESTION_CONTROL, WANTED).map_err(|error| format!("{CONGESTION_CONTROL}: {error}"))
}

#[expect(unsafe_code, reason = "rustix has no safe call for one that can also split descriptors")]
fn unshare() -> rustix::io::Result<()> {
    // SAFETY: only the network is left, so that all threads keep their descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}
