//! The route of a raw listener: bytes go to the handler as they come.

use hioload_pools::{Lease, ObjectPool};
use hioload_protocol::ws::MessageKind;

use super::entry::{Entry, Phase};
use super::handler::RawHandler;
use super::message::Message;
use super::route::{Context, Host, Route};
use super::share::Share;

/// The handler of a raw listener with its connections.
pub(crate) struct RawRoute<H: RawHandler>(Host<H, H::Session>);

impl<H: RawHandler> RawRoute<H> {
    pub(crate) fn new(handler: H, sessions_max: usize) -> Self {
        Self(Host::new(handler, sessions_max))
    }
}

impl<H: RawHandler> Route for RawRoute<H> {
    fn accepted(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        let data = self.0.handler.accepted(cx.shard);
        match self.0.sessions.insert(data) {
            Ok(user) => {
                entry.user = user;
                entry.flags.set_opened(true);
            }
            Err(_) => entry.advance(Phase::Dead, cx.egress.now_ms),
        }
    }

    fn received(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        bytes: Lease,
        _: Share,
    ) -> Option<Lease> {
        if entry.is_open() {
            cx.shard.counters.messages += 1;
            cx.egress.extras.count_in(entry, bytes.len());
            let bytes = Message::new(MessageKind::Binary, bytes);
            self.0.call(cx, entry, |handler, shard, session| {
                handler.received(shard, session, bytes);
            });
        }
        None
    }

    fn aim(&mut self, _: &mut Context<'_>, _: &mut Entry) -> Option<Lease> {
        None
    }

    fn filled(&mut self, _: &mut Context<'_>, _: &mut Entry, _: Lease, _: usize) {
        unreachable!("a raw route aims no receive");
    }

    fn drained(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.0.call(cx, entry, |handler, shard, session| handler.drained(shard, session));
    }

    fn timer(&mut self, cx: &mut Context<'_>, entry: &mut Entry, token: u64) {
        self.0.call(cx, entry, |handler, shard, session| handler.timer(shard, session, token));
    }

    fn closed(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        let reason = entry.ending();
        self.0.last_call(cx, entry, |handler, shard, session| {
            handler.closed(shard, session, reason);
        });
    }
}
