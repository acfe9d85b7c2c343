//! The clients of a shard: what each one does between and around its connections.
//!
//! Comes in: descriptions with their handlers, found addresses, ends of connections, time. Goes
//! out: connections that are being made, calls of handlers that have no session, and at last the
//! end of a client. One connection of it is [`dialing`](super::dialing), then a session as any
//! other. A client that waits or looks up has no socket, so its timer is not that of an entry.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use hioload_pools::{Key, ObjectPool, Slab, Wheel};
use hioload_protocol::ws::CloseCode;

use super::client::{ByUser, ClientCall, Dialled, Nobody, websocket_client};
use super::dialing::Dialing;
use super::entry::{Entry, Phase, Protocol};
use super::handler::Closed;
use super::orders::Order;
use super::route::{Context, Route};
use super::turn::Turn;
use super::{Action, Shard, websocket_route};
use crate::reactor::{Reactor, Socket, Token};
use crate::ws::{ClientHandler, ClientId, Connect, ConnectError, Host, Plan, Transport};
use crate::ws::{STABLE_MS, Wanted, look_up};

/// Clients of one shard at the most. Their routes are numbered behind those of the server.
const CLIENTS_MAX: usize = 32_768;

/// One client, over all its connections.
struct Dial {
    plan: Rc<Plan>,
    step: Step,
    /// Its handler, until it gets its place among the routes.
    route: Option<Box<dyn Route>>,
    /// The look-up of this attempt.
    look_up: Option<Wanted>,
    /// What is left to be tried in this attempt.
    addresses: vec::IntoIter<SocketAddr>,
    /// The end of this attempt.
    deadline_ms: u64,
    /// Counts attempts, so that a late look-up is known as such.
    attempt: u32,
    /// Attempts in a row that were waited for.
    tries: u32,
    /// Connections that opened.
    generation: u32,
    opened_ms: u64,
    /// Its handler still sets the connection up, which so far is no more than an attempt.
    in_set_up: bool,
    /// Since when it tries without a connection; of no meaning while it has one.
    offline_ms: Option<u64>,
    /// We closed it: it will not be opened again.
    cancelled: bool,
}

/// Where a client is.
pub(super) enum Step {
    /// To begin an attempt.
    Begin,
    /// Its host is being looked up.
    Resolving,
    /// It was.
    Found(io::Result<Vec<SocketAddr>>),
    /// This entry is being connected, or waits for the response.
    Connecting(Key),
    /// An attempt failed; after it was connected there is nothing to be tried elsewhere.
    Failed { error: ConnectError, connected: bool },
    /// This entry is its session.
    Open(Key),
    /// The session is over.
    Over { reason: Closed },
    /// Its timer begins the next attempt.
    Waiting,
}

/// The clients of a shard.
pub(crate) struct Dials {
    slab: Slab<(Key, Dial)>,
    wheel: Wheel,
    /// The number of the first route that is a client's.
    routes_from: usize,
    /// The shard drains: nothing is begun any more.
    draining: bool,
}

impl Dials {
    pub(super) fn new() -> Self {
        let slab = Slab::new(CLIENTS_MAX);
        Self { slab, wheel: Wheel::new(), routes_from: 0, draining: false }
    }

    pub(super) fn set_routes_from(&mut self, routes: usize) {
        self.routes_from = routes;
    }

    pub(super) fn next_tick(&self) -> Option<u64> {
        self.wheel.next_tick()
    }

    fn get(&mut self, key: Key) -> Option<&mut Dial> {
        self.slab.get_mut(key).map(|(_, dial)| dial)
    }

    fn route_of(&self, key: Key) -> usize {
        self.routes_from + key.index as usize
    }

    fn of_route(&mut self, route: u16) -> Option<&mut (Key, Dial)> {
        let index = usize::from(route).checked_sub(self.routes_from)?;
        self.slab.get_index_mut(u32::try_from(index).ok()?)
    }

    /// The TCP connection of this route stands: what is left of the attempt is for its handshake.
    pub(super) fn connected(&mut self, route: u16) {
        if let Some((key, dial)) = self.of_route(route) {
            let (index, deadline_ms) = (key.index, dial.deadline_ms);
            self.wheel.set(index, deadline_ms);
        }
    }

    /// The session of this entry opens; answers which one it is.
    pub(super) fn opened(&mut self, entry: &Entry, now_ms: u64) -> u32 {
        let Some((key, dial)) = self.of_route(entry.route) else { return 0 };
        dial.generation += 1;
        dial.opened_ms = now_ms;
        dial.step = Step::Open(entry.key);
        let (index, generation) = (key.index, dial.generation);
        self.wheel.cancel(index);
        generation
    }

    /// Whether this is the route of a client that was closed.
    pub(super) fn is_closing(&mut self, route: u16) -> bool {
        self.of_route(route).is_some_and(|(_, dial)| dial.cancelled)
    }

    /// The connection of this route is over; answers whose it was.
    pub(super) fn over(&mut self, route: u16, step: Step) -> Option<Key> {
        let (key, dial) = self.of_route(route)?;
        dial.step = step;
        let key = *key;
        self.wheel.cancel(key.index);
        Some(key)
    }
}

impl Shard {
    /// Connects to another server, after this callback, and lets `handler` serve the connection
    /// on this shard. See [`ClientHandler`].
    ///
    /// Wrong descriptions are told to the handler too ([`ClientHandler::failed`]), and so is a
    /// shard that has no room for another client (there may be 32,768 of them).
    pub fn connect<H: ClientHandler>(&mut self, connect: Connect, handler: H) -> ClientId {
        self.dial(connect, ByUser(handler))
    }

    /// As [`Connect::open`], with the connection on this shard: for futures that are
    /// [spawned](Self::spawn) here, and for others.
    ///
    /// # Errors
    /// The connection could not be opened.
    ///
    /// # Examples
    /// ```
    /// use hioload::Shard;
    /// use hioload::ws::Connect;
    ///
    /// fn ask(shard: &mut Shard) {
    ///     let opening = shard.open(Connect::to("ws://127.0.0.1:9001/ws"));
    ///     let asking = async move {
    ///         let mut client = opening.await?;
    ///         client.send("what time is it?").await?;
    ///         println!("{:?}", client.next().await);
    ///         Ok::<(), Box<dyn std::error::Error>>(())
    ///     };
    ///     shard.spawn(asking).detach();
    /// }
    /// ```
    pub fn open(
        &self,
        connect: Connect,
    ) -> impl Future<Output = Result<crate::ws::Client, ConnectError>> + Send + use<> + 'static
    {
        crate::ws::open_on(self.handle(), connect)
    }

    /// Ends a client, after this callback: cancels the attempt to connect, or closes its session.
    /// It will not be opened again.
    pub fn close_client(&mut self, client: ClientId, code: CloseCode) {
        if client.shard == self.index() {
            self.actions.push(Action::CloseClient { key: client.key, code });
        } else if let Some(handle) = self.handles.get(usize::from(client.shard)) {
            let close = move |shard: &mut Self| shard.close_client(client, code);
            handle.order(Order::Run(Box::new(close)));
        }
    }

    /// A client of this shard closes its session by itself: it will not be opened again.
    pub(crate) fn cancel_client(&mut self, client: ClientId) {
        if let Some(dial) = self.dials.get(client.key) {
            dial.cancelled = true;
        }
    }

    /// Whether the handler of this client sets its connection up still, which is no more than an
    /// attempt until that is done.
    pub(crate) fn note_set_up(&mut self, client: ClientId, runs: bool) {
        let opened_ms = self.now().as_millis();
        if let Some(dial) = self.dials.get(client.key) {
            (dial.in_set_up, dial.opened_ms) = (runs, opened_ms);
        }
    }

    pub(crate) fn dial<D: Dialled>(&mut self, connect: Connect, handler: D) -> ClientId {
        self.dial_route(connect.plan(), Box::new(websocket_client(handler)))
    }

    pub(crate) fn dial_route(
        &mut self,
        plan: Result<Plan, ConnectError>,
        route: Box<dyn Route>,
    ) -> ClientId {
        let nobody = Key::from_u64(u64::MAX);
        let key = match plan {
            Ok(plan) => {
                let dial = Dial::new(plan, route);
                match self.dials.slab.insert((nobody, dial)) {
                    Ok(key) => {
                        if let Some((own, _)) = self.dials.slab.get_mut(key) {
                            *own = key;
                        }
                        self.actions.push(Action::Dial(key));
                        key
                    }
                    Err((_, dial)) => {
                        let error = ConnectError::Full { problem: "it has too many clients" };
                        let route = dial.route.map(|route| (route, error));
                        self.actions
                            .extend(route.map(|(route, error)| Action::Refuse(route, error)));
                        nobody
                    }
                }
            }
            Err(error) => {
                self.actions.push(Action::Refuse(route, error));
                nobody
            }
        };
        ClientId { shard: self.index(), key }
    }

    /// What became of a look-up.
    fn found(&mut self, key: Key, attempt: u32, found: io::Result<Vec<SocketAddr>>) {
        if let Some(dial) = self.dials.get(key)
            && dial.attempt == attempt
            && matches!(dial.step, Step::Resolving)
        {
            dial.step = Step::Found(found);
            self.actions.push(Action::Dial(key));
        }
    }
}

impl Dial {
    /// Its host has no address.
    fn unresolved(&self, error: io::Error) -> ConnectError {
        let host = match &self.plan.target.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        ConnectError::Resolve { host, source: Arc::new(error) }
    }

    fn new(plan: Plan, route: Box<dyn Route>) -> Self {
        Self {
            plan: Rc::new(plan),
            step: Step::Begin,
            route: Some(route),
            look_up: None,
            addresses: Vec::new().into_iter(),
            deadline_ms: 0,
            attempt: 0,
            tries: 0,
            generation: 0,
            opened_ms: 0,
            in_set_up: false,
            offline_ms: None,
            cancelled: false,
        }
    }
}

impl<R: Reactor> Turn<R> {
    /// The handle of a client wants something.
    pub(super) fn wake_client(&mut self, key: Key) {
        let client = ClientId { shard: self.driver.shard.index(), key };
        // It may be woken in the turn in which it began: before its first step.
        self.seat(key);
        let Some(dial) = self.driver.shard.dials.get(key) else { return };
        if let Step::Open(session) = dial.step
            && let Some(entry) = self.entries.get_mut(session)
        {
            self.driver.woken(entry, client);
        } else if !self.tell(key, ClientCall::Woken(client, None)) {
            self.driver.shard.close_client(client, CloseCode::INTERNAL);
        }
    }

    /// The next step of a client.
    pub(super) fn dial(&mut self, key: Key) {
        let Some(dial) = self.driver.shard.dials.get(key) else { return };
        match std::mem::replace(&mut dial.step, Step::Begin) {
            Step::Begin => self.begin_attempt(key),
            Step::Found(Ok(addresses)) => {
                dial.addresses = addresses.into_iter();
                self.try_next(key, None);
            }
            Step::Found(Err(error)) => {
                let error = dial.unresolved(error);
                self.attempt_failed(key, &error);
            }
            Step::Failed { error, connected } => {
                let in_time = self.driver.egress.now_ms < dial.deadline_ms;
                if connected || !in_time {
                    self.attempt_failed(key, &error);
                } else {
                    self.try_next(key, Some(error));
                }
            }
            Step::Over { reason } => self.connection_over(key, reason),
            step => dial.step = step,
        }
    }

    /// A description that cannot be used: its handler is told, and gone.
    pub(super) fn refuse_client(&mut self, mut route: Box<dyn Route>, error: &ConnectError) {
        let mut cx = self.driver.context();
        let told = catch_unwind(AssertUnwindSafe(move || {
            route.client(&mut cx, ClientCall::Failed(error));
            drop(route);
        }));
        self.note_panic(told.err());
    }

    pub(super) fn close_client(&mut self, key: Key, code: CloseCode) {
        let Some(dial) = self.driver.shard.dials.get(key) else { return };
        dial.cancelled = true;
        match dial.step {
            Step::Connecting(session) | Step::Open(session) => {
                if let Some(entry) = self.entries.get_mut(session) {
                    self.driver.close(entry, Closed::ByHandler(code));
                }
            }
            Step::Resolving | Step::Waiting => self.forget(key),
            // A step is due, and finds that it is cancelled.
            Step::Begin | Step::Found(_) | Step::Failed { .. } | Step::Over { .. } => {}
        }
    }

    /// The timers of clients.
    pub(super) fn run_dial_timers(&mut self, now_ms: u64) {
        let mut expired = std::mem::take(&mut self.expired);
        self.driver.shard.dials.wheel.advance(now_ms, &mut |index| expired.push(index));
        for index in expired.drain(..) {
            let Some((key, dial)) = self.driver.shard.dials.slab.get_index(index) else { continue };
            let key = *key;
            let timeout =
                ConnectError::Timeout { after: Duration::from_millis(dial.plan.timeout_ms) };
            match dial.step {
                Step::Waiting => self.begin_attempt(key),
                Step::Resolving => self.attempt_failed(key, &timeout),
                Step::Connecting(session) => {
                    if let Some(entry) = self.entries.get_mut(session) {
                        entry.fail_dialing(timeout, now_ms);
                        self.driver.settle(entry);
                    }
                }
                _ => {}
            }
        }
        self.expired = expired;
    }

    /// The shard drains: what has no connection ends at once, the others with theirs.
    pub(super) fn drain_clients(&mut self) {
        let dials = &mut self.driver.shard.dials;
        dials.draining = true;
        let idle = |step: &Step| matches!(step, Step::Resolving | Step::Waiting);
        let gone: Vec<Key> =
            dials.slab.iter().filter(|(_, dial)| idle(&dial.step)).map(|(key, _)| *key).collect();
        for key in gone {
            self.attempt_failed(key, &ConnectError::Stopped);
        }
    }

    fn begin_attempt(&mut self, key: Key) {
        let now_ms = self.driver.egress.now_ms;
        self.seat(key);
        let dials = &mut self.driver.shard.dials;
        let draining = dials.draining;
        let Some(dial) = dials.get(key) else { return };
        if draining || dial.cancelled {
            return self.attempt_failed(key, &ConnectError::Stopped);
        }
        dial.attempt += 1;
        dial.offline_ms.get_or_insert(now_ms);
        dial.deadline_ms = now_ms.saturating_add(dial.plan.timeout_ms);
        let (plan, attempt, deadline_ms) = (Rc::clone(&dial.plan), dial.attempt, dial.deadline_ms);
        match &plan.target.host {
            Host::Address(address) => {
                dial.addresses = vec![SocketAddr::new(*address, plan.target.port)].into_iter();
                self.try_next(key, None);
            }
            Host::Name(name) => {
                dial.step = Step::Resolving;
                dials.wheel.set(key.index, deadline_ms);
                let handle = self.driver.shard.handle();
                let wanted = look_up(name, plan.target.port, move |found| {
                    let tell = move |shard: &mut Shard| shard.found(key, attempt, found);
                    handle.order(Order::Run(Box::new(tell)));
                });
                if let Some(dial) = self.driver.shard.dials.get(key) {
                    dial.look_up = Some(wanted);
                }
            }
        }
    }

    /// Gives the handler of a client its place among the routes.
    fn seat(&mut self, key: Key) {
        let Some(route) = self.driver.shard.dials.get(key).and_then(|dial| dial.route.take())
        else {
            return;
        };
        let at = self.driver.shard.dials.route_of(key);
        while self.driver.routes.len() <= at {
            self.driver.routes.push(websocket_route(Nobody, 0, None));
        }
        self.driver.routes[at] = route;
    }

    /// Connects to the next address of this attempt; without another one `error` is how it failed.
    fn try_next(&mut self, key: Key, mut error: Option<ConnectError>) {
        let now_ms = self.driver.egress.now_ms;
        let route = u16::try_from(self.driver.shard.dials.route_of(key));
        let route = route.expect("there are fewer routes than that");
        let draining = self.driver.shard.dials.draining;
        loop {
            let Some(dial) = self.driver.shard.dials.get(key) else { return };
            if draining || dial.cancelled {
                return self.attempt_failed(key, &ConnectError::Stopped);
            }
            let Some(address) = dial.addresses.next() else {
                let none = io::ErrorKind::NotFound;
                let error = error.unwrap_or_else(|| dial.unresolved(none.into()));
                return self.attempt_failed(key, &error);
            };
            // Those behind it get their share of the time that is left.
            let shares = dial.addresses.len() as u64 + 1;
            let until_ms = now_ms + (dial.deadline_ms.saturating_sub(now_ms) / shares).max(1);
            let plan = Rc::clone(&dial.plan);
            match self.connect(route, plan, address) {
                Ok(session) => {
                    let dials = &mut self.driver.shard.dials;
                    if let Some(dial) = dials.get(key) {
                        dial.step = Step::Connecting(session);
                    }
                    return dials.wheel.set(key.index, until_ms);
                }
                Err(failed) => error = Some(failed),
            }
        }
    }

    /// Begins one connection.
    fn connect(
        &mut self,
        route: u16,
        plan: Rc<Plan>,
        address: SocketAddr,
    ) -> Result<Key, ConnectError> {
        let mut entry = Entry::new(Socket::new(u32::MAX, 0), self.driver.egress.now_ms);
        let Transport::Tcp = plan.target.transport;
        entry.protocol = Protocol::Dialing(Box::new(Dialing::new(plan, address)));
        entry.phase = Phase::Dialing;
        entry.route = route;
        entry.flags.set_client(true);
        let full = |_| ConnectError::Full { problem: "it has limits.connections_max of them" };
        let key = self.entries.insert(entry).map_err(full)?;
        let Some(entry) = self.entries.get_mut(key) else {
            unreachable!("it was just stored");
        };
        entry.key = key;
        match self.driver.reactor.connect(address, Token(key.to_u64())) {
            Ok(socket) => entry.socket = socket,
            Err(error) => {
                self.entries.remove(key);
                return Err(ConnectError::io(address, error));
            }
        }
        Ok(key)
    }

    /// An attempt failed: there is another one, or the client ends.
    fn attempt_failed(&mut self, key: Key, error: &ConnectError) {
        let draining = self.driver.shard.dials.draining;
        self.driver.shard.dials.wheel.cancel(key.index);
        let Some(dial) = self.driver.shard.dials.get(key) else { return };
        drop(dial.look_up.take());
        if dial.cancelled {
            return self.forget(key);
        }
        let error = if draining { &ConnectError::Stopped } else { error };
        if !self.tell(key, ClientCall::Failed(error)) || !error.is_temporary() {
            return self.forget(key);
        }
        self.try_later(key);
    }

    /// Its session is over: it is opened again, or the client ends.
    fn connection_over(&mut self, key: Key, reason: Closed) {
        let now_ms = self.driver.egress.now_ms;
        let draining = self.driver.shard.dials.draining;
        let Some(dial) = self.driver.shard.dials.get(key) else { return };
        // One that was not set up was an attempt that failed, which may help another time.
        let failed = std::mem::take(&mut dial.in_set_up);
        if !failed {
            if now_ms.saturating_sub(dial.opened_ms) >= STABLE_MS {
                dial.tries = 0;
            }
            dial.offline_ms = Some(now_ms);
        }
        let again = dial.plan.reconnect.is_some_and(|rule| failed || rule.applies(reason));
        if draining || dial.cancelled || !again {
            return self.forget(key);
        }
        self.try_later(key);
    }

    fn try_later(&mut self, key: Key) {
        let random = self.driver.shard.random();
        let now_ms = self.driver.egress.now_ms;
        let dials = &mut self.driver.shard.dials;
        let Some(dial) = dials.get(key) else { return };
        let Some(reconnect) = dial.plan.reconnect else { return self.forget(key) };
        // Not in this turn: a wait of nothing must not keep others from theirs.
        let wait_ms = reconnect.wait_ms(dial.tries, random).max(1);
        let at_ms = now_ms.saturating_add(wait_ms);
        let offline_ms = at_ms.saturating_sub(dial.offline_ms.unwrap_or(now_ms));
        if !reconnect.allows(dial.tries, offline_ms) {
            return self.forget(key);
        }
        dial.tries = dial.tries.saturating_add(1);
        dial.step = Step::Waiting;
        let attempt = dial.tries;
        dials.wheel.set(key.index, at_ms);
        let wait = Duration::from_millis(wait_ms);
        if !self.tell(key, ClientCall::Reconnecting { attempt, wait }) {
            self.forget(key);
        }
    }

    /// Calls the handler of a client that has no session. `false`: it panicked, which costs this
    /// client.
    fn tell(&mut self, key: Key, call: ClientCall<'_>) -> bool {
        let at = self.driver.shard.dials.route_of(key);
        let super::driver::Driver { shard, egress, routes, reactor, .. } = &mut self.driver;
        let Some(route) = routes.get_mut(at) else { return true };
        let mut cx = Context { shard, egress, net: reactor };
        let told = catch_unwind(AssertUnwindSafe(|| route.client(&mut cx, call)));
        let is_well = told.is_ok();
        self.note_panic(told.err());
        is_well
    }

    /// The end of a client that has no connection.
    fn forget(&mut self, key: Key) {
        let dials = &mut self.driver.shard.dials;
        dials.wheel.cancel(key.index);
        let at = dials.route_of(key);
        let Some((_, dial)) = dials.slab.remove(key) else { return };
        let route = self.driver.routes.get_mut(at);
        let route = route.map(|route| std::mem::replace(route, websocket_route(Nobody, 0, None)));
        let dropped = catch_unwind(AssertUnwindSafe(|| drop((dial, route))));
        self.note_panic(dropped.err());
    }
}

#[cfg(test)]
mod tests;
