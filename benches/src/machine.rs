//! The machine: its cores for the servers and for the clients, what it says of itself, and for
//! how long something is measured on it.

use std::fs;
use std::time::Duration;

use crate::process;

/// The file with the congestion control that new sockets get.
pub const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// The file with the load average.
pub const LOAD_AVERAGE: &str = "/proc/loadavg";

/// The first word of a file of the kernel, or "unknown".
pub fn read_word(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// The cores of the servers and of the clients.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Where the servers run.
    pub servers: usize,
    /// Where the clients run.
    pub clients: usize,
}

impl Cores {
    /// Those that were asked for; otherwise the last that may be used for the clients, and the
    /// last but one for the servers.
    ///
    /// # Errors
    /// They are the same, or may not be used.
    pub fn choose(servers: Option<usize>, clients: Option<usize>) -> Result<Self, String> {
        let allowed = process::cores()?;
        let [.., last_but_one, last] = allowed[..] else {
            return Err(
                "two cores are needed, one for the servers and one for the clients".to_owned()
            );
        };
        let wanted = servers;
        let clients = clients.unwrap_or(if wanted == Some(last) { last_but_one } else { last });
        let spare = if clients == last_but_one { last } else { last_but_one };
        let servers = wanted.unwrap_or(spare);
        if servers == clients || !allowed.contains(&servers) || !allowed.contains(&clients) {
            return Err(format!("two different cores out of {allowed:?} are needed"));
        }
        Ok(Self { servers, clients })
    }
}

/// The flags that name them.
#[derive(clap::Args, Debug)]
pub struct CoreFlags {
    /// The core of the servers [default: the last but one that may be used]
    #[arg(long, value_name = "CORE")]
    server_core: Option<usize>,
    /// The core of the clients [default: the last that may be used]
    #[arg(long, value_name = "CORE")]
    client_core: Option<usize>,
}

impl CoreFlags {
    /// As [`Cores::choose`].
    ///
    /// # Errors
    /// As there.
    pub fn choose(&self) -> Result<Cores, String> {
        Cores::choose(self.server_core, self.client_core)
    }
}

/// A time on a command line, in seconds.
///
/// # Errors
/// It is no number, or not one from 0.01 to 60.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(10)..=Duration::from_secs(60);
    if allowed.contains(&duration) { Ok(duration) } else { Err("0.01 to 60 is wanted".to_owned()) }
}
