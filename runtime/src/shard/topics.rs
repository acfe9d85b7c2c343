//! Topics of a shard: who is subscribed to what, and how one message reaches all of them.
//!
//! Comes in: subscriptions by name, and messages published to a name. Goes out: the sessions that
//! a message is for, and its frame, made once for each encoding that one of them wants and shared
//! by reference. Nothing here crosses shards, and nothing is sent from within a callback.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use hioload_pools::{BytePool, Key, Lease, ObjectPool, Shared, Slab};
use hioload_protocol::ws::MessageKind;
use hioload_protocol::ws::frame::{self, Header};

use super::deflate::{Outgoing, StandingAlone};
use super::message::Message;
use super::outbox::{COPIED_BYTES_MAX, Egress, pins_too_much};
use super::session::SessionId;
use super::turn::Turn;
use super::{Action, Shard};
use crate::reactor::Reactor;

/// The most bytes of a topic's name.
pub const TOPIC_NAME_BYTES_MAX: usize = 255;

/// Why a session could not be subscribed to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name has more than [`TOPIC_NAME_BYTES_MAX`] bytes.
    #[error("the name of the topic is longer than 255 bytes")]
    NameTooLong,
    /// The session has `limits.subscriptions_max` of them.
    #[error("the session has limits.subscriptions_max subscriptions")]
    TooManySubscriptions,
    /// The topic is new, and the shard has `limits.topics_max` of them.
    #[error("the shard has limits.topics_max topics")]
    TooManyTopics,
    /// The session is closing.
    #[error("the session is closing")]
    NotOpen,
}

#[derive(Debug)]
struct Topic {
    name: Rc<str>,
    /// Indices of its sessions, next to each other.
    subscribers: Vec<u32>,
}

/// Where a subscription stands: in the list of its topic, and in that of its session.
#[derive(Clone, Copy, Debug)]
struct Place {
    in_topic: u32,
    in_session: u32,
}

/// The topics of a shard. A session is known by its slot: it leaves before its slot is used again.
#[derive(Debug)]
pub(crate) struct Topics {
    names: HashMap<Rc<str>, Key>,
    topics: Slab<Topic>,
    /// The topics of each session that has any, by their slots.
    sessions: HashMap<u32, Vec<u32>>,
    /// By session and topic: what makes every single change one of constant time.
    places: HashMap<(u32, u32), Place>,
    subscriptions_max: usize,
}

impl Topics {
    /// How many have subscribers.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(crate) fn new(topics_max: usize, subscriptions_max: usize) -> Self {
        Self {
            names: HashMap::new(),
            topics: Slab::new(topics_max),
            sessions: HashMap::new(),
            places: HashMap::new(),
            subscriptions_max,
        }
    }

    /// Adds a subscription. `false`: there was one.
    pub(super) fn subscribe(&mut self, session: u32, name: &str) -> Result<bool, SubscribeError> {
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(SubscribeError::NameTooLong);
        }
        let known = self.names.get(name).copied();
        if known.is_some_and(|key| self.places.contains_key(&(session, key.index))) {
            return Ok(false);
        }
        let own = self.sessions.get(&session).map_or(0, Vec::len);
        if own >= self.subscriptions_max {
            return Err(SubscribeError::TooManySubscriptions);
        }
        let key = match known {
            Some(key) => key,
            None => self.add_topic(name)?,
        };
        let own = self.sessions.entry(session).or_default();
        let Some(topic) = self.topics.get_mut(key) else { return Ok(false) };
        let place =
            Place { in_topic: topic.subscribers.len() as u32, in_session: own.len() as u32 };
        topic.subscribers.push(session);
        own.push(key.index);
        self.places.insert((session, key.index), place);
        Ok(true)
    }

    /// Takes a subscription away. `false`: there was none.
    pub(super) fn unsubscribe(&mut self, session: u32, name: &str) -> bool {
        let Some(topic) = self.names.get(name).map(|key| key.index) else { return false };
        let Some(place) = self.places.remove(&(session, topic)) else { return false };
        self.leave_topic(topic, place.in_topic);
        if let Some(own) = self.sessions.get_mut(&session) {
            own.swap_remove(place.in_session as usize);
            if own.is_empty() {
                self.sessions.remove(&session);
            } else if let Some(moved) = own.get(place.in_session as usize)
                && let Some(at) = self.places.get_mut(&(session, *moved))
            {
                at.in_session = place.in_session;
            }
        }
        true
    }

    /// Takes all subscriptions of a session away.
    pub(super) fn leave(&mut self, session: u32) {
        for topic in self.sessions.remove(&session).unwrap_or_default() {
            if let Some(place) = self.places.remove(&(session, topic)) {
                self.leave_topic(topic, place.in_topic);
            }
        }
    }

    pub(super) fn is_subscribed(&self, session: u32, name: &str) -> bool {
        let topic = self.names.get(name);
        topic.is_some_and(|key| self.places.contains_key(&(session, key.index)))
    }

    /// The topic of this name and how many are subscribed to it, if anybody is.
    fn find(&self, name: &str) -> Option<(Key, usize)> {
        let key = *self.names.get(name)?;
        Some((key, self.subscribers(key).len()))
    }

    /// None once the topic is forgotten, also if another one has its slot.
    fn subscribers(&self, key: Key) -> &[u32] {
        self.topics.get(key).map_or(&[], |topic| &topic.subscribers)
    }

    fn add_topic(&mut self, name: &str) -> Result<Key, SubscribeError> {
        let name: Rc<str> = name.into();
        let topic = Topic { name: Rc::clone(&name), subscribers: Vec::new() };
        let key = self.topics.insert(topic).map_err(|_| SubscribeError::TooManyTopics)?;
        self.names.insert(name, key);
        Ok(key)
    }

    /// Takes out the subscriber at a place of a topic, and the topic with the last one.
    fn leave_topic(&mut self, index: u32, at: u32) {
        let Some(topic) = self.topics.get_index_mut(index) else { return };
        topic.subscribers.swap_remove(at as usize);
        if let Some(moved) = topic.subscribers.get(at as usize) {
            if let Some(place) = self.places.get_mut(&(*moved, index)) {
                place.in_topic = at;
            }
        } else if topic.subscribers.is_empty()
            && let Some(key) = self.names.remove(&topic.name)
        {
            self.topics.remove(key);
        }
    }
}

/// What is published, on its way to the subscribers.
#[derive(Debug)]
pub(crate) struct Publish {
    topic: Key,
    except: Option<SessionId>,
    message: Message,
}

/// In which form a recipient wants a message. Each is made at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// One frame of a server, as it is.
    Plain,
    /// The same compressed, not referring to any other message.
    Deflated(StandingAlone),
    /// The payload alone: a raw stream.
    Bytes,
}

/// In how many ways a message is compressed at the most. Who would need another one gets it as it
/// is, which is always allowed.
const DEFLATED_MAX: usize = 4;

/// A message that is ready to be sent: by reference, to as many as want it.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    /// The header, where it does not stand in front of the payload.
    pub(super) header: Option<Shared>,
    pub(super) body: Shared,
    pub(super) is_compressed: bool,
}

impl Encoded {
    const fn plain(header: Option<Shared>, body: Shared) -> Self {
        Self { header, body, is_compressed: false }
    }
}

/// A message while it is delivered: its payload, and its encodings so far.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) kind: MessageKind,
    pub(super) payload: Shared,
    plain: Option<Encoded>,
    /// `None` in place of a frame: it would not be shorter.
    deflated: [Option<(StandingAlone, Option<Encoded>)>; DEFLATED_MAX],
    /// How many frames were made.
    pub(super) encodings: u64,
}

impl Publication {
    fn new(message: Message) -> Self {
        let (kind, len) = (message.kind(), message.len());
        let (mut lease, room) = message.into_parts();
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let header_len = server_frame(kind, len).encode(&mut header);
        // A small message in a large buffer is copied once rather than that many outboxes, and for
        // as long as the slowest of them, keep the buffer.
        let stays = len > COPIED_BYTES_MAX || !pins_too_much(lease.len(), lease.block_len());
        if room < header_len || !stays {
            lease.advance(room);
            return Self::of(kind, lease.freeze());
        }
        lease.advance(room - header_len);
        lease[..header_len].copy_from_slice(&header[..header_len]);
        let body = lease.freeze();
        let payload = body.slice(header_len, body.len());
        let plain = Some(Encoded::plain(None, body));
        Self { plain, encodings: 1, ..Self::of(kind, payload) }
    }

    const fn of(kind: MessageKind, payload: Shared) -> Self {
        let deflated = [const { None }; DEFLATED_MAX];
        Self { kind, payload, plain: None, deflated, encodings: 0 }
    }

    /// The message in this encoding, or as it is if that is shorter; `None` without memory for it.
    pub(super) fn encoded(&mut self, encoding: Encoding, egress: &mut Egress) -> Option<Encoded> {
        match encoding {
            Encoding::Deflated(how) => match self.deflated(how, egress) {
                Some(encoded) => Some(encoded),
                None => self.encoded(Encoding::Plain, egress),
            },
            Encoding::Bytes => Some(Encoded::plain(None, self.payload.clone())),
            Encoding::Plain => {
                if self.plain.is_none() {
                    self.plain = encode(self.kind, &self.payload, egress.pool());
                    self.encodings += u64::from(self.plain.is_some());
                }
                self.plain.clone()
            }
        }
    }

    fn deflated(&mut self, how: StandingAlone, egress: &mut Egress) -> Option<Encoded> {
        let is = |made: &&mut Option<(StandingAlone, _)>| {
            made.as_ref().is_none_or(|(known, _)| *known == how)
        };
        let made = self.deflated.iter_mut().find(is)?;
        if made.is_none() {
            let outgoing = Outgoing { kind: self.kind, payload: &self.payload, mask: None };
            let body = egress.deflated(how, outgoing);
            self.encodings += 1;
            let encoded = |body| Encoded { header: None, body, is_compressed: true };
            *made = Some((how, body.map(encoded)));
        }
        made.as_ref().and_then(|(_, encoded)| encoded.clone())
    }
}

fn server_frame(kind: MessageKind, len: usize) -> Header {
    Header::new(true, kind.opcode(), None, len as u64)
}

/// A frame: a small one in memory of its size, a large one around its payload.
fn encode(kind: MessageKind, payload: &Shared, pool: &dyn BytePool) -> Option<Encoded> {
    let mut header = [0; frame::HEADER_BYTES_MAX];
    let len = server_frame(kind, payload.len()).encode(&mut header);
    let copied = if payload.len() <= COPIED_BYTES_MAX { payload.len() } else { 0 };
    let mut lease = pool.acquire(len + copied, len + copied)?;
    lease[..len].copy_from_slice(&header[..len]);
    lease[len..].copy_from_slice(&payload[..copied]);
    let front = lease.freeze();
    Some(if copied == payload.len() {
        Encoded::plain(None, front)
    } else {
        Encoded::plain(Some(front), payload.clone())
    })
}

/// A copy of a payload with room for a server's header in front of it, if it is small: larger ones
/// are not moved into the next size of block for that.
pub(super) fn message_with_room(
    kind: MessageKind,
    payload: &[u8],
    pool: &dyn BytePool,
) -> Option<Message> {
    let small = payload.len() <= COPIED_BYTES_MAX;
    let room = if small { server_frame(kind, payload.len()).encoded_len() } else { 0 };
    let len = room + payload.len();
    let mut lease: Lease = pool.acquire(len, len)?;
    lease[room..].copy_from_slice(payload);
    Some(Message::with_room(kind, lease, room))
}

/// The topics of a shard, as both the shard and its sessions reach them. Never borrowed while user
/// code runs.
pub(crate) type SharedTopics = Rc<RefCell<Topics>>;

impl Shard {
    /// Sends a message to every session of this shard that is subscribed to a topic, after this
    /// callback; answers how many these are at this moment. With nobody subscribed it does nothing.
    ///
    /// The session that publishes gets the message too, if it is subscribed: see
    /// [`publish_except`](Self::publish_except). Other shards are not reached: post a function to
    /// each of [`handles`](Self::handles) that publishes there.
    ///
    /// *Order.* Everything that the callbacks of a turn queue (`publish`, [`send_to`], [`close`])
    /// is done after them in the order of the calls, so that each recipient gets publishes and
    /// `send_to`s in that order. What a callback sends on its own [`Session`](super::Session) is in
    /// that session's outbox at once, before anything that is queued. The recipients are those that
    /// are subscribed when it is the message's turn.
    ///
    /// *Cost.* The frame is made once, in the memory of the message where it can be, and all
    /// recipients send the same bytes. A payload above 2 KiB is not copied at all.
    ///
    /// *Slow readers.* Each recipient takes it by the bounds and the policy of any send. Who is
    /// above its mark with the policy "drop", or at `websocket.outbox_max_bytes`, misses the
    /// message, which [`Counters::missed`](super::Counters::missed) counts; who is closing is
    /// skipped. Outboxes that are full hold the message, not copies of it.
    ///
    /// [`send_to`]: Self::send_to
    /// [`close`]: Self::close
    ///
    /// # Examples
    /// ```
    /// use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    ///
    /// /// Everybody hears everybody.
    /// struct Chat;
    ///
    /// impl Handler for Chat {
    ///     type Session = ();
    ///     fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    ///         Upgrade::accept(())
    ///     }
    ///     fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
    ///         session.subscribe("all").expect("it is the first of this session");
    ///     }
    ///     fn message(&mut self, shard: &mut Shard, _: &mut Session<'_, ()>, message: Message) {
    ///         shard.publish("all", message);
    ///     }
    /// }
    /// # let bench = hioload::testkit::Bench::new(Chat);
    /// # let (mut one, mut other) = (bench.connect("/")?, bench.connect("/")?);
    /// # one.send_text("hello");
    /// # let hello = Some(hioload::testkit::Received::Text("hello".into()));
    /// # assert_eq!((one.receive(), other.receive()), (hello.clone(), hello));
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    pub fn publish(&mut self, topic: &str, message: Message) -> usize {
        self.publish_to(topic, None, message)
    }

    /// As [`publish`](Self::publish), to everybody but this session: who says something often
    /// knows it already.
    pub fn publish_except(&mut self, topic: &str, except: SessionId, message: Message) -> usize {
        self.publish_to(topic, Some(except), message)
    }

    fn publish_to(&mut self, topic: &str, except: Option<SessionId>, message: Message) -> usize {
        let topics = self.topics.borrow();
        let Some((key, mut count)) = topics.find(topic) else { return 0 };
        if let Some(except) = except
            && except.shard == self.index()
            && topics.is_subscribed(except.key.index, topic)
        {
            count -= 1;
        }
        drop(topics);
        if count > 0 {
            self.actions.push(Action::Publish(Publish { topic: key, except, message }));
        }
        count
    }
}

impl<R: Reactor> Turn<R> {
    /// Hands a published message to everybody who is subscribed by now.
    pub(super) fn publish(&mut self, publish: Publish) {
        let Publish { topic, except, message } = publish;
        // A recipient may leave while this goes on: its topic's list is not looked at meanwhile.
        self.recipients.clear();
        let topics = self.driver.shard.topics.borrow();
        self.recipients.extend_from_slice(topics.subscribers(topic));
        drop(topics);
        let except = except.filter(|except| except.shard == self.driver.shard.index());
        let mut publication = Publication::new(message);
        for index in &self.recipients {
            if let Some(entry) = self.entries.get_index_mut(*index)
                && except.is_none_or(|except| except.key != entry.key)
            {
                self.driver.deliver(entry, &mut publication);
            }
        }
        let counters = &mut self.driver.shard.counters;
        counters.published += 1;
        counters.encodings += publication.encodings;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Subscribe(u32, u8),
        Unsubscribe(u32, u8),
        Leave(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..6u32, 0..6u8).prop_map(|(session, topic)| Op::Subscribe(session, topic)),
            2 => (0..6u32, 0..6u8).prop_map(|(session, topic)| Op::Unsubscribe(session, topic)),
            1 => (0..6u32).prop_map(Op::Leave),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_relation_between_sessions_and_topics(ops in prop::collection::vec(op(), 0..200)) {
            let (topics_max, subscriptions_max) = (4, 3);
            let mut topics = Topics::new(topics_max, subscriptions_max);
            let mut model: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Subscribe(session, topic) => {
                        let name = format!("topic {topic}");
                        let own = model.values().filter(|all| all.contains(&session)).count();
                        let is = model.get(&name).is_some_and(|all| all.contains(&session));
                        let expected = if is {
                            Ok(false)
                        } else if own == subscriptions_max {
                            Err(SubscribeError::TooManySubscriptions)
                        } else if !model.contains_key(&name) && model.len() == topics_max {
                            Err(SubscribeError::TooManyTopics)
                        } else {
                            model.entry(name.clone()).or_default().insert(session);
                            Ok(true)
                        };
                        prop_assert_eq!(topics.subscribe(session, &name), expected);
                    }
                    Op::Unsubscribe(session, topic) => {
                        let name = format!("topic {topic}");
                        let was = model.get_mut(&name).is_some_and(|all| all.remove(&session));
                        prop_assert_eq!(topics.unsubscribe(session, &name), was);
                    }
                    Op::Leave(session) => {
                        topics.leave(session);
                        model.values_mut().for_each(|all| { all.remove(&session); });
                    }
                }
                // Who has no subscriber is forgotten.
                model.retain(|_, all| !all.is_empty());
                prop_assert_eq!(topics.names.len(), model.len());
                prop_assert_eq!(topics.topics.len(), model.len());
                let subscriptions = model.values().map(BTreeSet::len).sum::<usize>();
                prop_assert_eq!(topics.places.len(), subscriptions);
                let own = topics.sessions.values().map(Vec::len).sum::<usize>();
                prop_assert_eq!(own, subscriptions);
                for (name, all) in &model {
                    let key = topics.names[name.as_str()];
                    let found = topics.subscribers(key).iter().copied();
                    prop_assert_eq!(&found.collect::<BTreeSet<_>>(), all);
                }
            }
        }
    }

    #[test]
    fn a_name_has_255_bytes_at_the_most() {
        let mut topics = Topics::new(4, 4);
        assert_eq!(topics.subscribe(1, &"x".repeat(255)), Ok(true));
        assert_eq!(topics.subscribe(1, &"x".repeat(256)), Err(SubscribeError::NameTooLong));
    }

    #[test]
    fn what_was_published_to_a_forgotten_topic_does_not_reach_the_next_one() {
        let mut topics = Topics::new(1, 4);
        assert_eq!(topics.subscribe(1, "old"), Ok(true));
        let (old, _) = topics.find("old").unwrap();
        assert!(topics.unsubscribe(1, "old"));
        assert_eq!(topics.subscribe(2, "new"), Ok(true));
        assert_eq!(topics.find("new").unwrap().0.index, old.index);
        assert_eq!(topics.subscribers(old), []);
    }
}
