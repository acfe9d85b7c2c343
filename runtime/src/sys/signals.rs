//! SIGINT and SIGTERM, waited for by one thread.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What `kill` and service managers send.
    Terminate,
}

impl Signal {
    /// Its number: a process that a signal ended exits with 128 and this.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The blocked signals of this process, and the way to wait for them.
#[derive(Debug)]
pub struct Signals {
    signals: OwnedFd,
    stop: Arc<OwnedFd>,
}

/// Ends a [`Signals::wait`] from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Signals {
    /// Blocks both signals in this thread and in those that it starts from now on: call it before
    /// any other thread runs.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn block() -> io::Result<Self> {
        let set = signal_set();
        // SAFETY: `set` is a whole signal set; the old one is not asked for.
        let blocked =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: `set` is a whole signal set, which the call copies.
        let signals =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        let signals = own(signals)?;
        // SAFETY: takes no pointer.
        let stop = own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Self { signals, stop: Arc::new(stop) })
    }

    /// A handle with which any thread ends the wait.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Waits for a signal. `None`: the time is over, or a [`Stopper`] was used.
    ///
    /// # Errors
    /// The system cannot wait.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<Signal>> {
        let millis = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let readable =
            |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut both = [readable(&self.signals), readable(&self.stop)];
        // SAFETY: `both` has two whole entries and lives through the call.
        let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, millis) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
        }
        if both[1].revents != 0 {
            let mut count = [0; 8];
            read(&self.stop, &mut count);
        }
        if both[0].revents == 0 {
            return Ok(None);
        }
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        if read(&self.signals, &mut info) != info.len() {
            return Ok(None);
        }
        // The number is the first field (signalfd(2)).
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        Ok(match number {
            libc::SIGINT => Some(Signal::Interrupt),
            libc::SIGTERM => Some(Signal::Terminate),
            _ => None,
        })
    }
}

impl Stopper {
    /// Ends the wait that is under way, or the next one.
    pub fn stop(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` has eight bytes and lives through the call, which fails only if the
        // counter is full, and then it is signalled already.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

fn signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` has room for a signal set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has just initialised all of it.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: `set` is a whole signal set, and the number is one of a signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads what is there; 0 if nothing is.
fn read(fd: &OwnedFd, bytes: &mut [u8]) -> usize {
    // SAFETY: `bytes` has the length that is said and lives through the call.
    let count = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    usize::try_from(count).unwrap_or(0)
}
