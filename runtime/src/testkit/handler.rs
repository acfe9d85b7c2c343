//! The stand-in for what users write: a handler that does as it is told, and tells what it saw.

use std::cell::RefCell;
use std::rc::Rc;

use hioload_protocol::ws::{CloseCode, MessageKind};

use crate::shard::{Closed, Handler, Message, Request, Sent, Session, Shard, Upgrade};

/// What a [`FakeHandler`] was called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerCall {
    /// [`Handler::upgrade`], for this path.
    Upgrade(String),
    /// [`Handler::opened`].
    Opened,
    /// [`Handler::message`].
    Message(MessageKind, Vec<u8>),
    /// [`Handler::drained`].
    Drained,
    /// [`Handler::timer`], with this token.
    Timer(u64),
    /// [`Handler::closed`].
    Closed(Closed),
}

/// What a [`FakeHandler`] does with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nothing,
    /// Sends it back.
    Echo,
    /// Sends this text.
    Text(String),
    /// Closes the session.
    Close(CloseCode, String),
    /// Panics.
    Panic,
}

/// A [`Handler`] that records its calls and answers as it is told: it accepts and echoes until
/// then. Clones are handles of the same one, so that a test keeps one of them.
///
/// # Examples
/// ```
/// use hioload::testkit::{Bench, FakeHandler, Refused, Reply};
///
/// let handler = FakeHandler::new();
/// let bench = Bench::new(handler.clone());
/// handler.refuse(Some(403));
/// assert_eq!(bench.connect("/ws").unwrap_err(), Refused::Status(403));
/// handler.refuse(None);
/// handler.reply(Reply::Text("no".into()));
/// let mut client = bench.connect("/ws")?;
/// client.send_text("may I?");
/// assert_eq!(handler.calls().len(), 4); // Upgrade, Upgrade, Opened, Message
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug)]
pub struct FakeHandler {
    script: Rc<RefCell<Script>>,
}

#[derive(Debug)]
struct Script {
    calls: Vec<HandlerCall>,
    sent: Vec<Sent>,
    refuse: Option<u16>,
    reply: Reply,
}

impl FakeHandler {
    /// One that accepts every handshake and echoes every message.
    #[must_use]
    pub fn new() -> Self {
        let script =
            Script { calls: Vec::new(), sent: Vec::new(), refuse: None, reply: Reply::Echo };
        Self { script: Rc::new(RefCell::new(script)) }
    }

    /// From now on, refuses handshakes with this status (400 to 599), or accepts them.
    pub fn refuse(&self, status: Option<u16>) {
        self.script.borrow_mut().refuse = status;
    }

    /// From now on, does this with each message.
    pub fn reply(&self, reply: Reply) {
        self.script.borrow_mut().reply = reply;
    }

    /// All calls so far, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<HandlerCall> {
        self.script.borrow().calls.clone()
    }

    /// What each of its sends was answered, in their order.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.script.borrow().sent.clone()
    }

    fn record(&self, call: HandlerCall) {
        self.script.borrow_mut().calls.push(call);
    }
}

impl Default for FakeHandler {
    fn default() -> Self {
        Self::new()
    }
}

impl Handler for FakeHandler {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<()> {
        self.record(HandlerCall::Upgrade(request.path().to_owned()));
        match self.script.borrow().refuse {
            Some(status) => Upgrade::refuse(status),
            None => Upgrade::accept(()),
        }
    }

    fn opened(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.record(HandlerCall::Opened);
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        self.record(HandlerCall::Message(message.kind(), message.to_vec()));
        let reply = self.script.borrow().reply.clone();
        let sent = match reply {
            Reply::Nothing => return,
            Reply::Echo => session.send(message),
            Reply::Text(text) => session.send_text(&text),
            Reply::Close(code, reason) => return session.close(code, &reason),
            Reply::Panic => panic!("the fake handler was told to panic"),
        };
        self.script.borrow_mut().sent.push(sent);
    }

    fn drained(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.record(HandlerCall::Drained);
    }

    fn timer(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, token: u64) {
        self.record(HandlerCall::Timer(token));
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.record(HandlerCall::Closed(reason));
    }
}
