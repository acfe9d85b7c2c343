//! The protocol's inner loops by themselves: `cargo bench -p hioload-benches --bench micro`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use hioload::testkit::Treadmill;
use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
use hioload_benches::documents::documents;
use hioload_protocol::deflate::{Inflater, Whole};
use hioload_protocol::http::{Acceptance, Head, HeadLimits};
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{Connection, Env, Event, HeapMemory, Limits, Opcode, Role, utf8};

/// Letters stay ASCII under it: a frame that is unmasked where it lies can be read again and again.
const KEY: [u8; 4] = [1, 2, 3, 4];
const KIB: usize = 1024;
const DEFLATE_LEVEL: u8 = 6;
const WINDOW_BITS: u8 = 15;
/// A handshake as a browser sends it.
const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\n\
    Host: example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    frames(&mut criterion);
    unmasking(&mut criterion);
    utf8_checks(&mut criterion);
    handshake(&mut criterion);
    compression(&mut criterion);
    turns(&mut criterion);
    criterion.final_summary();
}

/// A masked text frame, from its bytes to a message: header, unmasking and UTF-8 check.
fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for len in [20, 512, 16 * KIB] {
        let mut frame = text_frame(len);
        let limits = Limits::default();
        let mut connection = Connection::new(Role::Server);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| {
                let mut env = Env { limits: &limits, memory: &mut HeapMemory, now_ms: 0 };
                let mut at = 0;
                let event = connection.read(black_box(&mut frame), &mut at, &mut env);
                assert!(matches!(event, Ok(Some(Event::Message(_)))), "it is a whole message");
                black_box(event)
            });
        });
    }
}

fn text_frame(len: usize) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let header_len = Header::new(true, Opcode::Text, Some(KEY), len as u64).encode(&mut header);
    let mut frame = header[..header_len].to_vec();
    frame.resize(header_len + len, b'h');
    frame
}

fn unmasking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for len in [20, 512, 16 * KIB, KIB * KIB] {
        let mut bytes = vec![b'h'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| mask(black_box(&mut bytes), KEY, 0));
        });
    }
}

fn utf8_checks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("utf8");
    for (kind, letters) in [("ascii", "a word and another "), ("mixed", "слово, 言葉, word, ")]
    {
        for len in [20, 512, 16 * KIB] {
            let text = text(letters, len);
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(BenchmarkId::new(kind, len), |bencher| {
                bencher.iter(|| utf8::check(black_box(text.as_bytes())).expect("it is UTF-8"));
            });
        }
    }
}

/// Letters over and over, `len` bytes or the few less at which a letter ends.
fn text(letters: &str, len: usize) -> String {
    let mut text = letters.repeat(len.div_ceil(letters.len()));
    text.truncate(text.floor_char_boundary(len));
    text
}

/// From the head of a request to the answer that accepts it.
fn handshake(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(KIB);
    criterion.bench_function("handshake", |bencher| {
        bencher.iter(|| {
            out.clear();
            let head = Head::parse(black_box(REQUEST), &HeadLimits::default());
            let head = head.expect("the request is sound");
            let request = head.websocket().expect("it is a handshake");
            request.accept(&mut out, &Acceptance::default()).expect("nothing is added");
            black_box(out.len())
        });
    });
}

/// One message of JSON that stands alone, as with `no_context`.
fn compression(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json");
    let document = documents(1, KIB).remove(0);
    group.throughput(Throughput::Bytes(document.len() as u64));
    let mut deflater = Whole::new(DEFLATE_LEVEL);
    let mut packed = vec![0; document.len()];
    let mut packed_len = 0;
    let mut deflate = || {
        let done = deflater.message(black_box(&document), WINDOW_BITS, &mut packed);
        packed_len = done.expect("JSON becomes shorter");
    };
    deflate();
    group.bench_function("deflate", |bencher| bencher.iter(&mut deflate));
    let payload = &packed[..packed_len];
    let limits = Limits::default();
    let mut inflater = Inflater::new();
    group.bench_function("inflate", |bencher| {
        bencher.iter(|| {
            let mut env = Env { limits: &limits, memory: &mut HeapMemory, now_ms: 0 };
            inflater.message(black_box(payload), false, &mut env).expect("it was compressed")
        });
    });
}

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

/// All of ours between two calls of the kernel, for a turn in which so many sessions receive a
/// message of 20 bytes each and echo it: the time of an element is that of a message.
fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    for sessions in [1, 16, 256] {
        let mut treadmill = Treadmill::new(sessions, &"h".repeat(20), |_| Echo);
        group.throughput(Throughput::Elements(sessions as u64));
        group.bench_function(BenchmarkId::from_parameter(sessions), |bencher| {
            bencher.iter(|| treadmill.turn());
        });
    }
}
