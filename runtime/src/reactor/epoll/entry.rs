//! What the epoll reactor knows of one socket: 32 bytes, because most sockets are idle.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::outgoing::NONE;
use crate::reactor::Token;

/// Something to read, or to accept.
pub(super) const READABLE: u32 = libc::EPOLLIN as u32;
/// Room to send, or connected.
pub(super) const WRITABLE: u32 = libc::EPOLLOUT as u32;
/// Broken. Always reported.
pub(super) const BROKEN: u32 = libc::EPOLLERR as u32;
/// Both directions have ended. Always reported.
pub(super) const HUNG_UP: u32 = libc::EPOLLHUP as u32;

/// A row of the table of sockets.
pub(super) struct Entry {
    pub(super) token: Token,
    /// `None` once the socket failed, was closed or released.
    fd: Option<OwnedFd>,
    /// Where the rest of a blocked send waits.
    pub(super) blocked: u32,
    /// Where the lease of a receive waits.
    pub(super) lease: u32,
    pub(super) phase: Phase,
    pub(super) mode: Mode,
    /// What epoll was told last, if the descriptor is there.
    pub(super) interest: u8,
    pub(super) is_watched: bool,
    /// The peer sent FIN.
    pub(super) has_ended: bool,
    /// FIN was sent, or follows the blocked send.
    pub(super) is_finishing: bool,
    /// It is in the queue of those that found no buffer.
    pub(super) is_starved: bool,
}

const _: () = assert!(size_of::<Option<Entry>>() <= 32, "a hundred thousand of them are idle");

/// What a socket is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Listening,
    Connecting,
    Open,
    /// To be handed over when what blocked has left.
    Releasing,
    Failed,
    /// Only the last completion is to come.
    Closed,
}

/// Where received bytes go; for a listener, whether it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Paused,
    Pool,
    Lease,
}

impl Entry {
    pub(super) const fn new(token: Token, fd: OwnedFd, phase: Phase, mode: Mode) -> Self {
        Self {
            token,
            fd: Some(fd),
            blocked: NONE,
            lease: NONE,
            phase,
            mode,
            interest: 0,
            is_watched: false,
            has_ended: false,
            is_finishing: false,
            is_starved: false,
        }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    pub(super) const fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fd.take()
    }

    pub(super) fn wants_bytes(&self) -> bool {
        self.mode != Mode::Paused && !self.has_ended && !self.is_starved
    }

    /// The events that matter now.
    pub(super) fn interest_wanted(&self) -> u32 {
        let mut interest = 0;
        if self.wants_bytes() && self.phase != Phase::Connecting {
            interest |= READABLE;
        }
        if self.blocked != NONE || self.phase == Phase::Connecting {
            interest |= WRITABLE;
        }
        interest
    }
}
