//! A handler for each code.

use std::collections::HashMap;
use std::fmt;

use super::body::Body;
use super::handler::{Handler, IprotoPeer, IprotoRequest};
use super::session::IprotoSession;
use crate::shard::Shard;

/// At most one log line in this time says that unknown codes come.
const LOG_INTERVAL_MS: u64 = 60_000;

type OnAccept<S> = Box<dyn FnMut(&mut Shard, &IprotoPeer<'_>) -> Option<S>>;
type OnRequest<S> = Box<dyn FnMut(&mut Shard, &mut IprotoSession<'_, S>, IprotoRequest)>;
type OnNotify<S> = Box<dyn FnMut(&mut Shard, &mut IprotoSession<'_, S>, u32, Body)>;

/// A [`Handler`](super::IprotoHandler) made of functions, one for each code.
///
/// A code without a function goes to [`default`](Self::default). Without that one too, it is
/// counted ([`Counters::unknown`](crate::Counters::unknown)), logged once a minute, and a request is
/// answered with the error of a dropped [`Reply`](super::Reply).
///
/// # Examples
/// ```
/// use hioload::Server;
/// use hioload::iproto::{Mux, pack, unpack};
///
/// let server = Server::builder().iproto("127.0.0.1:3301", |_shard| {
///     let mut visits = 0_u64; // of this shard
///     Mux::new()
///         .handle(1, |_, session, request| {
///             session.reply(request.reply, request.body); // echo
///         })
///         .handle(2, move |_, session, request| {
///             visits += 1;
///             session.reply(request.reply, &visits.to_le_bytes());
///         })
/// });
/// ```
pub struct Mux<S = ()> {
    accept: OnAccept<S>,
    requests: HashMap<u32, OnRequest<S>>,
    notifies: HashMap<u32, OnNotify<S>>,
    default_request: Option<OnRequest<S>>,
    default_notify: Option<OnNotify<S>>,
    /// When the last log line was written, and what has come since then.
    logged_ms: Option<u64>,
    unlogged: u64,
}

impl Mux<()> {
    /// Takes every connection, and keeps nothing for it.
    #[must_use]
    pub fn new() -> Self {
        Self::with_sessions(|_, _| Some(()))
    }
}

impl Default for Mux<()> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: 'static> Mux<S> {
    /// Asks `accept` about each connection: what is kept for it, or `None` to refuse it.
    #[must_use]
    pub fn with_sessions(
        accept: impl FnMut(&mut Shard, &IprotoPeer<'_>) -> Option<S> + 'static,
    ) -> Self {
        Self {
            accept: Box::new(accept),
            requests: HashMap::new(),
            notifies: HashMap::new(),
            default_request: None,
            default_notify: None,
            logged_ms: None,
            unlogged: 0,
        }
    }

    /// Requests of this code go to `handler`; the last one that is given for a code counts.
    #[must_use]
    pub fn handle(
        mut self,
        msg: u32,
        handler: impl FnMut(&mut Shard, &mut IprotoSession<'_, S>, IprotoRequest) + 'static,
    ) -> Self {
        self.requests.insert(msg, Box::new(handler));
        self
    }

    /// Notifies of this code go to `handler`.
    #[must_use]
    pub fn handle_notify(
        mut self,
        msg: u32,
        handler: impl FnMut(&mut Shard, &mut IprotoSession<'_, S>, u32, Body) + 'static,
    ) -> Self {
        self.notifies.insert(msg, Box::new(handler));
        self
    }

    /// Requests of all other codes go to `handler`.
    #[must_use]
    pub fn default(
        mut self,
        handler: impl FnMut(&mut Shard, &mut IprotoSession<'_, S>, IprotoRequest) + 'static,
    ) -> Self {
        self.default_request = Some(Box::new(handler));
        self
    }

    /// Notifies of all other codes go to `handler`.
    #[must_use]
    pub fn default_notify(
        mut self,
        handler: impl FnMut(&mut Shard, &mut IprotoSession<'_, S>, u32, Body) + 'static,
    ) -> Self {
        self.default_notify = Some(Box::new(handler));
        self
    }

    /// Whether requests of this code have a function of their own.
    #[must_use]
    pub fn handles(&self, msg: u32) -> bool {
        self.requests.contains_key(&msg)
    }

    /// Nobody is there for this code.
    fn unknown(&mut self, shard: &mut Shard, msg: u32) {
        shard.counters.unknown += 1;
        self.unlogged += 1;
        let now_ms = shard.now().as_millis();
        if self.logged_ms.is_none_or(|at| now_ms >= at + LOG_INTERVAL_MS) {
            let count = self.unlogged;
            tracing::warn!(msg, count, "no handler for this code: add one, or a default");
            (self.logged_ms, self.unlogged) = (Some(now_ms), 0);
        }
    }
}

impl<S: 'static> Handler for Mux<S> {
    type Session = S;

    fn accept(&mut self, shard: &mut Shard, peer: &IprotoPeer<'_>) -> Option<S> {
        (self.accept)(shard, peer)
    }

    fn request(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, S>,
        request: IprotoRequest,
    ) {
        let own = self.requests.get_mut(&request.msg);
        match own.or(self.default_request.as_mut()) {
            Some(handler) => handler(shard, session, request),
            None => self.unknown(shard, request.msg),
        }
    }

    fn notify(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, S>,
        msg: u32,
        body: Body,
    ) {
        let own = self.notifies.get_mut(&msg);
        match own.or(self.default_notify.as_mut()) {
            Some(handler) => handler(shard, session, msg, body),
            None => self.unknown(shard, msg),
        }
    }
}

impl<S> fmt::Debug for Mux<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux")
            .field("requests", &self.requests.keys())
            .field("notifies", &self.notifies.keys())
            .finish_non_exhaustive()
    }
}
