//! SIGINT and SIGTERM as something to wait for.
//!
//! They are blocked before any thread is started, so that every thread inherits that, and read
//! from a descriptor by the control thread: no handler runs, so nothing has to be safe in one.
//! SIGPIPE is ignored by the standard library; SIGHUP keeps its meaning.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A signal that asks the server to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: from a terminal, Ctrl-C.
    Interrupt,
    /// SIGTERM: from whoever runs the service.
    Terminate,
}

impl Signal {
    /// Its number; a process that a signal ended exits with 128 more.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
        }
    }

    const fn of_number(number: u32) -> Self {
        if number == libc::SIGINT as u32 { Self::Interrupt } else { Self::Terminate }
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

/// The signals of this process, held back until they are asked for. Of the thread that made it;
/// when it is dropped, the thread blocks again what it did before.
#[derive(Debug)]
pub struct Signals {
    signals: OwnedFd,
    stop: Arc<OwnedFd>,
    before: Mask,
    /// A signal mask belongs to a thread.
    _not_send: PhantomData<*const ()>,
}

impl Signals {
    /// Blocks SIGINT and SIGTERM in this thread and in all that it starts from now on.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn block() -> io::Result<Self> {
        let ours = Mask::of(&[libc::SIGINT, libc::SIGTERM]);
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the mask is initialised and outlives the call; -1 asks for a new descriptor.
        let signals = owned(unsafe { libc::signalfd(-1, &raw const ours.0, flags) })?;
        // SAFETY: takes plain numbers.
        let stop = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let before = ours.apply(libc::SIG_BLOCK)?;
        Ok(Self { signals, stop: Arc::new(stop), before, _not_send: PhantomData })
    }

    /// A handle with which any thread ends a [`wait`](Self::wait).
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Waits for a signal, at most for `timeout` (`None`: for ever). `Ok(None)`: the time is over,
    /// or a [`Stopper`] was used since the last wait. A signal comes before both.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<Signal>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let ready = poll([self.signals.as_raw_fd(), self.stop.as_raw_fd()], deadline)?;
            if let Some(signal) = self.read()? {
                return Ok(Some(signal));
            }
            if self.was_stopped()? || (!ready && deadline.is_some_and(|end| Instant::now() >= end))
            {
                return Ok(None);
            }
        }
    }

    /// The next signal that came.
    fn read(&self) -> io::Result<Option<Signal>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        if !read_into(&self.signals, &mut info)? {
            return Ok(None);
        }
        // SAFETY: a read from a signalfd fills whole structures, and it did.
        let info = unsafe { info.assume_init() };
        Ok(Some(Signal::of_number(info.ssi_signo)))
    }

    /// Whether a stopper was used since this was last asked.
    fn was_stopped(&self) -> io::Result<bool> {
        read_into(&self.stop, &mut MaybeUninit::<u64>::uninit())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // It cannot fail with a mask that the system gave us.
        let _ = self.before.apply(libc::SIG_SETMASK);
    }
}

/// Ends the [`wait`](Signals::wait) of a thread, or its next one.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Ends it.
    pub fn stop(&self) {
        let one = 1_u64;
        let (fd, from) = (self.0.as_raw_fd(), (&raw const one).cast());
        // SAFETY: `from` points to the 8 initialised bytes of `one`. A full counter refuses, and
        // then the wait has been ended often enough.
        let _ = unsafe { libc::write(fd, from, size_of::<u64>()) };
    }
}

/// A set of signals.
#[derive(Clone, Copy)]
struct Mask(libc::sigset_t);

impl Mask {
    fn of(signals: &[libc::c_int]) -> Self {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: `mask` is a valid place for a set, which the call initialises.
        unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
        for signal in signals {
            // SAFETY: the set was initialised by the call above; bad numbers are refused.
            unsafe { libc::sigaddset(mask.as_mut_ptr(), *signal) };
        }
        // SAFETY: `sigemptyset` initialised it.
        Self(unsafe { mask.assume_init() })
    }

    /// Changes the mask of this thread, and returns what it was.
    fn apply(&self, how: libc::c_int) -> io::Result<Self> {
        let mut before = Self::of(&[]);
        // SAFETY: both sets are initialised and outlive the call.
        match unsafe { libc::pthread_sigmask(how, &raw const self.0, &raw mut before.0) } {
            0 => Ok(before),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mask")
    }
}

/// Waits until one of the descriptors can be read (true) or the time is over or a call was
/// interrupted (false).
fn poll(descriptors: [RawFd; 2], deadline: Option<Instant>) -> io::Result<bool> {
    let mut entries = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // Rounded up, so that the time is over when it returns; a longer wait than `c_int` can tell is
    // taken up again by the caller.
    let timeout_ms = deadline.map_or(-1, |end| {
        let left = end.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: `entries` is an array of two initialised entries that outlives the call.
    match unsafe { libc::poll(entries.as_mut_ptr(), 2, timeout_ms) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
        ready => Ok(ready > 0),
    }
}

/// Reads one `T` from a descriptor that gives whole ones; false if there is none now.
fn read_into<T>(fd: &OwnedFd, into: &mut MaybeUninit<T>) -> io::Result<bool> {
    // SAFETY: `into` is a valid place for `size_of::<T>()` bytes.
    match unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), size_of::<T>()) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            error => Err(error),
        },
        bytes => Ok(bytes.unsigned_abs() == size_of::<T>()),
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has just opened it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a signal to this thread; the one of a test has blocked it.
    fn raise(signal: Signal) {
        // SAFETY: takes a plain number.
        assert_eq!(unsafe { libc::raise(signal.number()) }, 0);
    }

    fn blocked() -> Vec<i32> {
        let now = Mask::of(&[]).apply(libc::SIG_BLOCK).unwrap();
        // SAFETY: the set is initialised.
        let has = |signal: &i32| unsafe { libc::sigismember(&raw const now.0, *signal) } == 1;
        [libc::SIGINT, libc::SIGTERM].into_iter().filter(has).collect()
    }

    #[test]
    fn a_signal_is_waited_for() {
        let signals = Signals::block().unwrap();
        for signal in [Signal::Interrupt, Signal::Terminate] {
            raise(signal);
            assert_eq!(signals.wait(None).unwrap(), Some(signal));
        }
        assert_eq!(signals.wait(Some(Duration::ZERO)).unwrap(), None);
    }

    #[test]
    fn a_stopper_ends_one_wait_from_another_thread() {
        let signals = Signals::block().unwrap();
        let stopper = signals.stopper();
        let thread = std::thread::spawn(move || stopper.stop());
        assert_eq!(signals.wait(None).unwrap(), None);
        thread.join().unwrap();
        raise(Signal::Terminate);
        assert_eq!(signals.wait(None).unwrap(), Some(Signal::Terminate));
    }

    #[test]
    fn a_signal_comes_before_a_stop() {
        let signals = Signals::block().unwrap();
        signals.stopper().stop();
        raise(Signal::Interrupt);
        assert_eq!(signals.wait(None).unwrap(), Some(Signal::Interrupt));
        assert_eq!(signals.wait(None).unwrap(), None);
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let signals = Signals::block().unwrap();
        let (start, time) = (Instant::now(), Duration::from_millis(5));
        assert_eq!(signals.wait(Some(time)).unwrap(), None);
        assert!(start.elapsed() >= time);
    }

    #[test]
    fn threads_started_later_block_them_too_and_dropping_gives_the_mask_back() {
        let before = blocked();
        let signals = Signals::block().unwrap();
        assert_eq!(blocked(), [libc::SIGINT, libc::SIGTERM]);
        let inherited = std::thread::spawn(blocked).join().unwrap();
        assert_eq!(inherited, [libc::SIGINT, libc::SIGTERM]);
        drop(signals);
        assert_eq!(blocked(), before);
    }
}
