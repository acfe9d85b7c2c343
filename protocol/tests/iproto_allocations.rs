//! What iproto allocates: nothing per packet or call once a connection has its size, and for bytes
//! that are unpacked no more than a small multiple of them.
#![allow(unsafe_code, unreachable_pub)] // to count, the global allocator has to be one

#[path = "common/counting.rs"]
mod counting;

use counting::counted;
use hioload_protocol::iproto::{
    Action, Connection, Env, Event, Header, HeapMemory, Limits, append, unpack, unpack_ber,
};

type Client = Connection<Vec<u8>, usize>;

/// How many calls the packets of `wire` are responses of.
fn responses(client: &mut Client, wire: &[u8], now_ms: u64) -> usize {
    let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms };
    let (mut at, mut responses) = (0, 0);
    while let Some(event) = client.read(wire, &mut at, &mut env).expect("good packets") {
        responses += usize::from(matches!(event, Event::Response { .. }));
    }
    responses
}

/// Makes 100 calls; half of them are answered in time, and a quarter late.
fn round(client: &mut Client, calls: &mut Vec<Header>, wire: &mut Vec<u8>, now_ms: u64) {
    let limits = Limits::default();
    calls.clear();
    for token in 0..100 {
        let deadline_ms = now_ms + 10 + token as u64 % 7;
        calls.push(client.call(1, 0, deadline_ms, token, &limits).expect("nothing is in the way"));
    }
    wire.clear();
    for call in calls.iter().step_by(2) {
        wire.extend_from_slice(&Header { len: 4, ..*call }.encode());
        wire.extend_from_slice(b"body");
    }
    assert_eq!(responses(client, wire, now_ms), 50);

    let now_ms = now_ms + 900;
    let mut timed_out = 0;
    while let Some(action) = client.poll(now_ms, &limits) {
        timed_out += usize::from(matches!(action, Action::TimedOut(_)));
    }
    assert_eq!(timed_out, 50);
    wire.clear();
    for call in calls.iter().skip(1).step_by(4) {
        wire.extend_from_slice(&call.encode());
    }
    assert_eq!(responses(client, wire, now_ms), 0);
}

#[test]
fn no_packet_and_no_call_allocates() {
    let mut client = Client::new(0);
    let (mut calls, mut wire) = (Vec::new(), Vec::new());
    let mut rounds = |seconds: std::ops::Range<u64>| {
        for second in seconds {
            round(&mut client, &mut calls, &mut wire, second * 1_000);
        }
    };
    rounds(0..400); // longer than calls that are late are remembered
    let ((), allocations, _) = counted(|| rounds(400..1_000));
    assert_eq!(allocations, 0, "in 600 rounds");
    assert!(client.stats().late > 20_000);
}

#[test]
fn appending_allocates_only_for_room() {
    let mut out = Vec::with_capacity(100);
    let value = (7_u16, "name", &[1_u8, 2, 3][..], (9_u64, -1_i32));
    let (done, allocations, _) = counted(|| append(&mut out, &value));
    assert_eq!((done, allocations), (Ok(()), 0));
    let (done, allocations, _) = counted(|| unpack::<(u16, &str, &[u8], (u64, i32))>(&out));
    assert_eq!((done, allocations), (Ok(value), 0), "it borrows");
}

/// Counts that nothing stands behind cost nothing; counts of empty strings cost what those do.
#[test]
fn unpacking_allocates_a_small_multiple_of_the_bytes() {
    let mut bytes = Vec::new();
    let mut state = 1_u32;
    for round in 0..2_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.clear();
        bytes.extend_from_slice(&[[0xff; 4], [round as u8, 0, 0, 0]][round % 2]);
        bytes.extend(
            (0..round % 200).map(|at| if at % 4 == 0 { (state >> (at % 24)) as u8 % 3 } else { 0 }),
        );
        let ((), _, allocated) = counted(|| {
            let _ = unpack::<Vec<String>>(&bytes);
            let _ = unpack::<Vec<Vec<Vec<u8>>>>(&bytes);
            let _ = unpack::<(u32, Vec<u64>)>(&bytes);
            let _ = unpack_ber::<Vec<Vec<u16>>>(&bytes);
        });
        assert!(allocated <= 4 * 8 * bytes.len(), "{allocated} bytes for {}", bytes.len());
    }
    let ((), calls, _) = counted(|| {
        unpack::<Vec<u64>>(&[0xff; 64]).expect_err("there are not so many");
        unpack::<String>(&[0xff; 64]).expect_err("it is not so long");
    });
    assert_eq!(calls, 0);
}
