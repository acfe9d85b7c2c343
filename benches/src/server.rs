//! Servers: that they start on their core, and that they end.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::machine::Cores;
use crate::process::pin;

/// Longer than any server takes to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server in a process of its own, which ends with this.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts what `command` makes for a free port, on its core, and waits until it listens.
    ///
    /// # Errors
    /// It does not start or listen; where its own words are.
    pub fn start(
        command: impl FnOnce(u16) -> Result<Command, String>,
        cores: Cores,
        log: &Path,
    ) -> Result<Self, String> {
        let port = free_port()?;
        let mut command = command(port)?;
        let output = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        pin(cores.servers)?;
        let child = command.spawn();
        pin(cores.clients)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = child.map_err(|error| format!("{program} does not start: {error}"))?;
        let mut server = Self { child, address: (Ipv4Addr::LOCALHOST, port).into() };
        server
            .wait_until_it_listens()
            .map_err(|problem| format!("{problem} ({})", log.display()))?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let end = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.ended() {
                return Err(format!("it ended with {status}"));
            }
            if Instant::now() > end {
                return Err(format!("it does not listen after {START_TIMEOUT:?}"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is a child that only echoes: nothing is lost, and an error means that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16, String> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}
