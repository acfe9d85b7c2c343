//! An open connection: what is under way on it, what goes out, what came back.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::reader::{Desk, Fault, Progress, Reader};
use crate::script::Identity;

/// So much goes into one send at the most, but for the end of a message.
const SEND_BYTES: usize = 256 * 1024;

pub(crate) struct Connection {
    pub(crate) fd: OwnedFd,
    pub(crate) number: u32,
    pub(crate) progress: Progress,
    /// When the messages under way were due, the oldest first, in nanoseconds of the run.
    pub(crate) under_way: VecDeque<u64>,
    /// How many messages were due so far, in an open loop.
    pub(crate) due: u64,
    /// Whether it is on the list of those that have something to send.
    pub(crate) listed: bool,
    pub(crate) is_lost: bool,
    /// Whether output waits for room in the socket.
    pub(crate) stuck: bool,
    reader: Reader,
    /// What a send left.
    rest: Vec<u8>,
    answers: Vec<u8>,
}

/// The memory that all connections of a thread use in turn.
pub(crate) struct Rooms {
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(fd: OwnedFd, number: u32) -> Self {
        Self {
            fd,
            number,
            progress: Progress { identity: Identity::new(number), sent: 0, received: 0 },
            under_way: VecDeque::new(),
            due: 0,
            listed: false,
            is_lost: false,
            stuck: false,
            reader: Reader::default(),
            rest: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Reads once. The number of bytes that came; 0: it was ready for nothing.
    #[inline]
    pub(crate) fn receive(&mut self, desk: &mut Desk<'_>, room: &mut [u8]) -> Result<usize, Fault> {
        match recv(&self.fd, &mut *room, RecvFlags::empty()) {
            Ok((_, 0)) => Err(Fault::Closed("it ended without a close frame".to_owned())),
            Ok((_, read)) => self.read(&room[..read], desk).map(|()| read),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(Fault::Closed(error.to_string())),
        }
    }

    /// Takes in what was received.
    #[inline]
    pub(crate) fn read(&mut self, input: &[u8], desk: &mut Desk<'_>) -> Result<(), Fault> {
        self.reader.read(input, desk, &mut self.progress, &mut self.answers)?;
        // In the middle of a frame that waits for room they have to wait too.
        if !self.answers.is_empty() {
            self.rest.append(&mut self.answers);
        }
        Ok(())
    }

    /// Whether something other than new messages is to be sent.
    #[inline]
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Sends the rest, then up to `count` messages; `due` tells of each, by its number, when it
    /// was due. The number of bytes that went out.
    #[inline]
    pub(crate) fn send(
        &mut self,
        desk: &Desk<'_>,
        output: &mut Vec<u8>,
        mut count: u64,
        due: impl Fn(u64) -> u64,
    ) -> Result<usize, Fault> {
        let mut total = 0;
        self.stuck = false;
        while count > 0 || !self.rest.is_empty() {
            output.clear();
            output.append(&mut self.rest);
            while count > 0 && output.len() < SEND_BYTES {
                let Progress { identity, sent, .. } = self.progress;
                desk.script.push(output, identity, sent);
                self.under_way.push_back(due(sent));
                self.progress.sent += 1;
                count -= 1;
            }
            let sent = match send(&self.fd, output, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(error) => return Err(Fault::Closed(error.to_string())),
            };
            total += sent;
            if sent < output.len() {
                self.rest.extend_from_slice(&output[sent..]);
                self.stuck = true;
                break;
            }
        }
        Ok(total)
    }
}
