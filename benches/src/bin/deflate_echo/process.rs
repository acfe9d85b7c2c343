//! Processes: which core they run on, how much time they used, and that they end.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Longer than any server takes to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The cores that this process may use.
pub(crate) fn cores() -> Result<Vec<usize>, String> {
    let allowed = sched_getaffinity(None).map_err(|error| error.to_string())?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect())
}

/// Moves this thread, and the processes that it starts from now on, to one core.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|error| format!("cannot run on core {core}: {error}"))
}

/// The processor time of all threads of a process, to the nanosecond.
pub(crate) fn cpu_time(process: u32) -> Result<Duration, String> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.map_err(|error| format!("the server is gone: {error}"))?;
    let mut nanoseconds = 0;
    for thread in threads.flatten() {
        // A thread that ended meanwhile has no file any more.
        if let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) {
            let spent = text.split_whitespace().next().and_then(|spent| spent.parse::<u64>().ok());
            nanoseconds += spent.ok_or("the kernel keeps no schedstat")?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A server in a process of its own, which ends with this.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts what `command` makes for a free port, on the given core, and waits until it listens.
    pub(crate) fn start(
        command: impl FnOnce(u16) -> Result<Command, String>,
        core: usize,
        own_core: usize,
        log: &Path,
    ) -> Result<Self, String> {
        let port = free_port()?;
        let mut command = command(port)?;
        let output = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        pin(core)?;
        let child = command.spawn();
        pin(own_core)?;
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
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}"));
            }
            if Instant::now() > end {
                return Err(format!("it does not listen after {START_TIMEOUT:?}"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
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
