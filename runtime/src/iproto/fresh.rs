//! A connection that is being set up, as its set-up uses it.
//!
//! Comes in: what the user's function asks of the connection, and how it ends. Goes out: the same on
//! the line, which lets nobody else pass until then.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::callbacks::SettingUp;
use super::channel::{self, ChannelCall};
use super::line::{Line, SetUpEnd, Who};
use super::{CallError, Payload};

/// A connection that is open for its [init](super::Connect::init) only: what that calls is the
/// first that the server gets.
///
/// It is of use until the init has ended, or has failed; then everything is refused with
/// [`CallError::Stopped`]. Keeping it keeps nothing open.
#[derive(Clone)]
pub struct FreshChannel {
    line: Arc<Line>,
    number: u32,
}

impl FreshChannel {
    pub(super) const fn new(line: Arc<Line>, number: u32) -> Self {
        Self { line, number }
    }

    /// Asks the server: see [`Channel::call`](super::Channel::call).
    pub fn call<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> ChannelCall {
        ChannelCall::begin(&self.line, msg, body.into(), None, self.who())
    }

    /// As [`call`](Self::call), with a timeout of its own.
    pub fn call_within<'a>(
        &self,
        timeout: Duration,
        msg: u32,
        body: impl Into<Payload<'a>>,
    ) -> ChannelCall {
        ChannelCall::begin(&self.line, msg, body.into(), Some(timeout), self.who())
    }

    /// Tells the server something that wants no answer: see
    /// [`Channel::notify`](super::Channel::notify).
    ///
    /// # Errors
    /// It was not taken.
    pub fn notify<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> Result<(), CallError> {
        channel::notify(&self.line, msg, body.into(), self.who())
    }

    const fn who(&self) -> Who {
        Who::SetUp(self.number)
    }

    /// Sets the connection up, and says on its line how that has ended.
    pub(super) async fn set_up(self, setting_up: SettingUp) {
        let mut report = Report { fresh: self, end: Err("it panicked".into()) };
        report.end = setting_up.await;
    }
}

impl fmt::Debug for FreshChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshChannel").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Says how a set-up has ended, also if its future did not get to its end.
struct Report {
    fresh: FreshChannel,
    end: SetUpEnd,
}

impl Drop for Report {
    fn drop(&mut self) {
        let FreshChannel { line, number } = &self.fresh;
        line.set_up_ended(*number, self.end.clone());
    }
}
