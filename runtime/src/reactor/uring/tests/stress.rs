//! Random traffic over fifty connections, both ends of each in one reactor: messages of all
//! sizes, pauses, leases, hoarded windows; every byte is checked, and all memory comes home.

use super::*;

const CONNECTIONS: usize = 50;
const BYTES_EACH: u64 = 200_000;

/// xorshift64*: enough to be different each time and the same for each seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// One direction of a connection.
struct Flow {
    sender: Socket,
    receiver: Socket,
    given: u64,
    arrived: u64,
    blocked: usize,
    has_lease: bool,
    is_paused: bool,
    is_ended: bool,
}

/// What lies at `offset` of a flow.
fn byte(flow: usize, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8) ^ flow as u64) as u8
}

struct Stress {
    arena: Arena,
    uring: Uring,
    random: Random,
    flows: Vec<Flow>,
    hoard: Vec<Lease>,
}

impl Stress {
    fn new(uring: Uring, arena: Arena, seed: u64) -> Self {
        let mut stress =
            Self { arena, uring, random: Random(seed), flows: Vec::new(), hoard: Vec::new() };
        for number in 0..CONNECTIONS as u64 {
            let (client, server) = pair();
            let client = stress.uring.adopt(client.into(), Token(2 * number)).unwrap();
            let server = stress.uring.adopt(server.into(), Token(2 * number + 1)).unwrap();
            for (sender, receiver) in [(client, server), (server, client)] {
                stress.flows.push(Flow {
                    sender,
                    receiver,
                    given: 0,
                    arrived: 0,
                    blocked: 0,
                    has_lease: false,
                    is_paused: true,
                    is_ended: false,
                });
            }
        }
        stress
    }

    /// Sends something, perhaps, if nothing is in the way.
    fn feed(&mut self, number: usize) {
        let flow = &mut self.flows[number];
        if flow.blocked > 0 || flow.given == BYTES_EACH || self.random.below(3) == 0 {
            return;
        }
        let segments = match self.random.below(10) {
            0 => 1 + self.random.below(150),
            1..4 => 1 + self.random.below(8),
            _ => 1,
        };
        let size = [30, 3000, 60_000][self.random.below(3) as usize];
        let mut message = Vec::new();
        for _ in 0..segments {
            let len = (1 + self.random.below(size)).min(BYTES_EACH - flow.given);
            let bytes: Vec<u8> =
                (flow.given..flow.given + len).map(|offset| byte(number, offset)).collect();
            flow.given += len;
            if let Some(mut lease) = self.arena.acquire(bytes.len().max(1), bytes.len().max(1)) {
                lease.truncate(bytes.len());
                lease.copy_from_slice(&bytes);
                message.push(lease.freeze());
            } else {
                flow.given -= len;
                break;
            }
        }
        self.uring.send(flow.sender, message);
        if flow.given == BYTES_EACH {
            self.uring.shutdown(flow.sender);
        }
    }

    /// Changes the mind of the receiver, perhaps.
    fn steer(&mut self, number: usize) {
        let flow = &mut self.flows[number];
        if flow.has_lease || self.random.below(4) > 0 {
            return;
        }
        let receive = match self.random.below(4) {
            0 => Receive::Paused,
            1 => {
                let len = 1 + self.random.below(20_000) as usize;
                match self.arena.acquire(len, len) {
                    Some(lease) => Receive::Into(lease),
                    None => return,
                }
            }
            _ => Receive::Pool,
        };
        flow.has_lease = matches!(receive, Receive::Into(_));
        flow.is_paused = matches!(receive, Receive::Paused);
        self.uring.receive(flow.receiver, receive);
    }

    fn check(&mut self, number: usize, bytes: &[u8]) {
        let flow = &mut self.flows[number];
        assert!(!bytes.is_empty() && !flow.is_ended);
        for (at, &got) in bytes.iter().enumerate() {
            let offset = flow.arrived + at as u64;
            assert_eq!(got, byte(number, offset), "flow {number} at {offset}");
        }
        flow.arrived += bytes.len() as u64;
    }

    fn handle(&mut self, completion: Completion) {
        // The flow that goes out of this socket, and the one that comes in.
        let out = completion.token.0 as usize;
        let inward = out ^ 1;
        match completion.event {
            Event::Received(lease) => {
                assert!(!self.flows[inward].has_lease, "a lease comes first");
                self.check(inward, &lease);
                if self.random.below(20) == 0 {
                    self.hoard.push(lease);
                }
            }
            Event::ReceivedInto { lease, filled } => {
                self.check(inward, &lease[..filled]);
                self.flows[inward].has_lease = false;
                self.flows[inward].is_paused = true;
            }
            Event::SendBlocked(bytes) => {
                assert!(bytes > 0 && self.flows[out].blocked == 0);
                self.flows[out].blocked = bytes;
            }
            Event::Sent { bytes, done } => {
                let blocked = &mut self.flows[out].blocked;
                assert!(bytes > 0 && bytes <= *blocked);
                *blocked -= bytes;
                assert_eq!(done, *blocked == 0);
            }
            Event::Ended => {
                let flow = &mut self.flows[inward];
                assert_eq!((flow.arrived, flow.is_ended), (BYTES_EACH, false));
                flow.is_ended = true;
            }
            other => panic!("{other:?}"),
        }
        if self.hoard.len() > 100 || self.random.below(50) == 0 {
            let at = self.random.below(self.hoard.len().max(1) as u64) as usize;
            self.hoard.drain(at.min(self.hoard.len())..);
        }
    }

    fn run(&mut self) {
        let mut batch = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.flows.iter().any(|flow| !flow.is_ended) {
            assert!(Instant::now() < deadline, "stuck: {:?}", self.uring);
            for number in 0..self.flows.len() {
                self.feed(number);
                self.steer(number);
            }
            self.uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
            assert!(batch.len() <= BATCH_MAX);
            for completion in batch.drain(..) {
                self.handle(completion);
            }
        }
    }

    /// Closes everything, and checks that each socket says so once.
    fn finish(mut self) {
        let mut closed = HashMap::new();
        for number in (0..self.flows.len()).step_by(2) {
            let Flow { sender, receiver, .. } = self.flows[number];
            self.uring.close(sender);
            self.uring.close(receiver);
        }
        let mut batch = Vec::new();
        while closed.len() < self.flows.len() {
            self.uring.wait(SECOND, &mut batch).unwrap();
            for completion in batch.drain(..) {
                if let Event::Closed = completion.event {
                    assert_eq!(closed.insert(completion.token, ()), None);
                }
            }
        }
        let stats = self.uring.stats();
        assert_eq!(stats.sockets, 0);
        assert_eq!(stats.sent_bytes, self.flows.len() as u64 * BYTES_EACH);
        assert_eq!(stats.received_bytes, stats.sent_bytes);
        assert_eq!(stats.calls, self.flows.len() as u64, "one shutdown for each flow");
        self.hoard.clear();
        assert_eq!(self.uring.stats().buffers_lent, 0);
        drop(self.uring);
        assert_eq!(self.arena.stats().in_use_bytes, 0);
    }
}

#[rstest]
fn every_byte_arrives_and_all_memory_comes_home(
    #[values(Tier::Base, Tier::Bundles, Tier::Incremental)] tier: Tier,
    // With eight entries both queues are always too short.
    #[values(8, 256)] entries: u32,
    #[values(2, 9)] seed: u64,
) {
    let arena = arena();
    let Some(uring) = uring_of(entries, tier, &arena, 16, 8192) else { return };
    let mut stress = Stress::new(uring, arena, seed);
    stress.run();
    stress.finish();
}
