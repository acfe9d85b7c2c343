//! The ring itself: set-up, probing, submission and the one system call.
//!
//! Comes in: entries. Goes out: completion entries. It knows no sockets. Whoever pushes an entry
//! answers for the memory that it names: all of that is owned by the reactor until the kernel is
//! done with it, and the reactor drains the ring before it lets go of any of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};

use super::error::UringError;
use super::{Tier, UringConfig};

/// Completion entries per submission entry: one enter may complete many more operations than it
/// submits (16 bytes each).
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// `IORING_REGISTER_RING_FDS` and its counterpart, of `linux/io_uring.h`; the crate has them only
/// for a handle that borrows its ring.
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// One completion entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cqe {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// How an enter waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Not at all.
    No,
    /// Until something completes.
    ForEver,
    /// Until something completes, for this long at the most.
    For(Duration),
}

pub(super) struct Ring {
    inner: IoUring,
    /// The descriptor for enter, and the flag that says which kind it is.
    enter_fd: i32,
    enter_flags: EnterFlags,
    /// Entries that found the queue full, in their order.
    backlog: VecDeque<squeue::Entry>,
    /// Entries ever pushed.
    pushed: u64,
    /// Enters ever made.
    enters: u64,
}

impl Ring {
    pub(super) fn new(config: &UringConfig) -> Result<Self, UringError> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.entries * COMPLETIONS_PER_ENTRY);
        let inner = builder
            .build(config.entries)
            .map_err(|source| UringError::of_setup(source, io_uring_disabled()))?;
        check_features(&inner)?;
        let mut ring = Self {
            enter_fd: inner.as_raw_fd(),
            enter_flags: EnterFlags::empty(),
            inner,
            backlog: VecDeque::new(),
            pushed: 0,
            enters: 0,
        };
        ring.register_own_fd();
        Ok(ring)
    }

    /// Registers a ring of provided buffers at `address`, for the best tier or the one asked.
    ///
    /// # Safety
    /// `entries` zeroed buffer entries lie at `address`, page aligned, and stay mapped until
    /// [`unregister_buffers`](Self::unregister_buffers) or the end of the ring.
    pub(super) unsafe fn register_buffers(
        &self,
        address: u64,
        entries: u16,
        wanted: Option<Tier>,
    ) -> Result<Tier, UringError> {
        let register = |flags| {
            let submitter = self.inner.submitter();
            // SAFETY: passed on to our caller.
            unsafe { submitter.register_buf_ring_with_flags(address, entries, GROUP, flags) }
        };
        if matches!(wanted, None | Some(Tier::Incremental)) {
            match register(io_uring::types::IOU_PBUF_RING_INC as u16) {
                Ok(()) => return Ok(Tier::Incremental),
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                    return Err(UringError::of_call("IORING_REGISTER_PBUF_RING", error));
                }
                Err(_) if wanted.is_some() => return Err(lacks_incremental()),
                Err(_) => {}
            }
        }
        let has_bundles = self.inner.params().is_feature_recvsend_bundle();
        if wanted == Some(Tier::Bundles) && !has_bundles {
            return Err(lacks_bundles());
        }
        register(0).map_err(|source| UringError::of_call("IORING_REGISTER_PBUF_RING", source))?;
        let bundles = has_bundles && wanted != Some(Tier::Base);
        Ok(if bundles { Tier::Bundles } else { Tier::Base })
    }

    /// Ends what [`register_buffers`](Self::register_buffers) began.
    pub(super) fn unregister_buffers(&self) -> io::Result<()> {
        self.inner.submitter().unregister_buf_ring(GROUP)
    }

    /// Queues an entry; enters early if the queue is full. The memory that it names must stay
    /// until it has completed (see the head of this file).
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        self.pushed += 1;
        if self.backlog.is_empty() {
            if self.try_push(&entry) {
                return;
            }
            // The result shows in the queue: either there is room now, or the entry has to wait.
            let _ = self.enter(Sleep::No);
            if self.try_push(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// How many entries were pushed, since the start.
    pub(super) const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// How many of the entries that were pushed the kernel has consumed, since the start.
    pub(super) fn consumed(&mut self) -> u64 {
        let waiting = self.inner.submission().len() + self.backlog.len();
        self.pushed - waiting as u64
    }

    /// How many enters were made.
    pub(super) const fn enters(&self) -> u64 {
        self.enters
    }

    /// Whether an enter that does not sleep would do anything.
    pub(super) fn has_work(&mut self) -> bool {
        let queue = self.inner.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the kernel keeps completions that found the queue full.
    pub(super) fn has_overflow(&mut self) -> bool {
        self.inner.submission().cq_overflow()
    }

    /// Submits all, runs what the kernel deferred, and sleeps as asked. Being interrupted, timed
    /// out or short of memory is no error: what was not submitted stays queued.
    pub(super) fn enter(&mut self, sleep: Sleep) -> io::Result<()> {
        let waiting = self.inner.submission().len() as u32;
        let result = match sleep {
            Sleep::No => self.call(waiting, 0, &SubmitArgs::new()),
            Sleep::ForEver => self.call(waiting, 1, &SubmitArgs::new()),
            Sleep::For(duration) => {
                let timespec = Timespec::from(duration);
                self.call(waiting, 1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        self.refill();
        match result {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves all completion entries to `entries`.
    pub(super) fn harvest(&mut self, entries: &mut Vec<Cqe>) {
        let completions = self.inner.completion();
        entries.extend(completions.map(|entry: cqueue::Entry| Cqe {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    fn call(&mut self, submit: u32, complete: u32, args: &SubmitArgs<'_, '_>) -> io::Result<()> {
        self.enters += 1;
        let flags = self.enter_flags | EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: `args` and the time in it live until the call returns; for the memory that the
        // entries name see the head of this file.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                submit,
                complete,
                flags.bits(),
                std::ptr::from_ref(args),
                size_of::<SubmitArgs<'_, '_>>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        let mut queue = self.inner.submission();
        // SAFETY: the memory that the entry names stays: see the head of this file.
        unsafe { queue.push(entry) }.is_ok()
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Spares each enter the look-up of the descriptor. A thread has 16 places; without one the
    /// descriptor itself serves.
    fn register_own_fd(&mut self) {
        let mut update = RingFdUpdate {
            offset: u32::MAX,
            resv: 0,
            data: self.inner.as_raw_fd().cast_unsigned().into(),
        };
        if self.register_fd(REGISTER_RING_FDS, &mut update) {
            self.enter_fd = update.offset.cast_signed();
            self.enter_flags = EnterFlags::REGISTERED_RING;
        }
    }

    fn register_fd(&self, operation: libc::c_uint, update: &mut RingFdUpdate) -> bool {
        // SAFETY: `update` is one writable `io_uring_rsrc_update`, as both operations want.
        let count = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.inner.as_raw_fd(),
                operation,
                std::ptr::from_mut(update),
                1,
            )
        };
        count == 1
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.enter_flags.contains(EnterFlags::REGISTERED_RING) {
            // The thread would keep the ring open for as long as it lives.
            let offset = self.enter_fd.cast_unsigned();
            let mut update = RingFdUpdate { offset, resv: 0, data: 0 };
            let done = self.register_fd(UNREGISTER_RING_FDS, &mut update);
            debug_assert!(done, "what was registered can be unregistered");
        }
    }
}

/// The only group of provided buffers.
pub(super) const GROUP: u16 = 0;

/// Errors of enter that mean: go on, nothing is lost.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

fn check_features(ring: &IoUring) -> Result<(), UringError> {
    let lacking =
        |missing, since| UringError::Lacking { missing, tier: Tier::Base, lower: "", since };
    let features = ring.params();
    let needed = [
        (features.is_feature_ext_arg(), "a timeout for enter (EXT_ARG)"),
        (features.is_feature_nodrop(), "lossless completion (NODROP)"),
        (features.is_feature_fast_poll(), "internal polling (FAST_POLL)"),
        (features.is_feature_skip_cqe_on_success(), "silent success (CQE_SKIP)"),
    ];
    for (has, missing) in needed {
        if !has {
            return Err(lacking(missing, "6.1"));
        }
    }
    let mut probe = Probe::new();
    let register = ring.submitter().register_probe(&mut probe);
    register.map_err(|source| UringError::of_call("IORING_REGISTER_PROBE", source))?;
    let needed = [
        (opcode::Accept::CODE, "the operation ACCEPT"),
        (opcode::AsyncCancel::CODE, "the operation ASYNC_CANCEL"),
        (opcode::Close::CODE, "the operation CLOSE"),
        (opcode::Connect::CODE, "the operation CONNECT"),
        (opcode::PollAdd::CODE, "the operation POLL_ADD"),
        (opcode::Recv::CODE, "the operation RECV"),
        (opcode::Send::CODE, "the operation SEND"),
        (opcode::SendMsg::CODE, "the operation SENDMSG"),
    ];
    for (code, missing) in needed {
        if !probe.is_supported(code) {
            return Err(lacking(missing, "6.1"));
        }
    }
    Ok(())
}

const fn lacks_incremental() -> UringError {
    UringError::Lacking {
        missing: "incremental buffers (IOU_PBUF_RING_INC)",
        tier: Tier::Incremental,
        lower: ", another tier",
        since: "6.12",
    }
}

const fn lacks_bundles() -> UringError {
    UringError::Lacking {
        missing: "bundles (RECVSEND_BUNDLE)",
        tier: Tier::Bundles,
        lower: ", the tier `base`",
        since: "6.10",
    }
}

/// `kernel.io_uring_disabled`, where there is such a thing.
fn io_uring_disabled() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}
