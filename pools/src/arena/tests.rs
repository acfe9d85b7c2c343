use proptest::prelude::*;

use super::*;

fn arena(capacity_bytes: usize) -> Arena {
    Arena::new(ArenaConfig { capacity_bytes, ..ArenaConfig::default() }).unwrap()
}

#[test]
fn a_lease_is_three_words_also_if_it_may_be_missing() {
    assert_eq!(size_of::<Option<Lease>>(), 24);
}

#[test]
fn a_capacity_that_is_no_power_of_two_is_used_whole() {
    let pool = arena(3 << 20);
    let two = pool.acquire(2 << 20, 2 << 20).unwrap();
    let one = pool.acquire(1 << 20, 1 << 20).unwrap();
    assert!(pool.acquire(1, 1).is_none());
    assert_eq!(pool.stats().in_use_bytes, 3 << 20);
    assert_eq!(pool.stats().refused, 1);
    drop((one, two));
    assert_eq!(pool.inner().free_blocks().len(), 2);
}

#[test]
fn a_payload_of_1_mib_takes_a_block_of_1_mib() {
    let pool = arena(4 << 20);
    assert_eq!(pool.acquire(1 << 20, 0).unwrap().block_len(), 1 << 20);
}

#[test]
fn an_expected_size_is_reached_in_place() {
    let pool = arena(8 << 20);
    let mut lease = pool.acquire(64 << 10, 1 << 20).unwrap();
    let others: Vec<_> = (0..64).map(|_| pool.acquire(1000, 1000).unwrap()).collect();
    let address = lease.as_mut_ptr();
    for kib in [128, 256, 512, 1024] {
        let used = lease.len();
        assert!(pool.grow(&mut lease, used, kib << 10));
    }
    assert_eq!(lease.as_mut_ptr(), address);
    assert_eq!(pool.stats().grown_in_place, 4);
    assert_eq!(pool.stats().grown_by_copy, 0);
    drop(others);
}

#[test]
fn leases_that_never_grew_as_expected_take_the_same_memory_again() {
    let pool = arena(64 << 20);
    let address = pool.acquire(64 << 10, 1 << 20).unwrap().as_mut_ptr();
    for _ in 0..100 {
        assert_eq!(pool.acquire(64 << 10, 1 << 20).unwrap().as_mut_ptr(), address);
    }
}

#[test]
fn a_lease_that_cannot_grow_in_place_moves_with_its_bytes() {
    let pool = arena(1 << 20);
    let mut lease = pool.acquire(128, 128).unwrap();
    lease.copy_from_slice(&[7; 128]);
    let behind = pool.acquire(128, 128).unwrap();
    assert!(pool.grow(&mut lease, 100, 4096));
    assert_eq!(lease.len(), 4096);
    assert_eq!(&lease[..100], &[7; 100]);
    assert_eq!(pool.stats().grown_by_copy, 1);
    drop((lease, behind));
    assert_eq!(pool.stats().in_use_bytes, 0);
}

#[test]
fn a_lease_that_is_not_alone_does_not_grow() {
    let pool = arena(1 << 20);
    let mut lease = pool.acquire(1000, 1000).unwrap();
    let tail = lease.split_off(500);
    assert!(!pool.grow(&mut lease, 500, 4096));
    assert_eq!(lease.len(), 500);
    lease.unsplit(tail).unwrap();
    assert!(pool.grow(&mut lease, 500, 4096));
}

#[test]
fn windows_join_only_where_they_touch() {
    let pool = arena(1 << 20);
    let mut first = pool.acquire(30, 30).unwrap();
    let mut second = first.split_off(10);
    let third = second.split_off(10);
    let third = first.unsplit(third).unwrap_err();
    assert!(first.unsplit(second).is_ok());
    assert!(first.unsplit(third).is_ok());
    assert_eq!(first.len(), 30);
    assert!(first.is_sole());
}

#[test]
fn shared_windows_join_while_others_read_them() {
    let pool = arena(1 << 20);
    let mut lease = pool.acquire(20, 20).unwrap();
    lease.copy_from_slice(b"first partother part");
    let mut first = lease.split_to(10).freeze();
    let reader = first.clone();
    let foreign = pool.acquire(10, 10).unwrap().freeze();
    let foreign = first.unsplit(foreign).unwrap_err();
    assert!(first.unsplit(lease.freeze()).is_ok());
    assert_eq!((&*first, &*reader), (&b"first partother part"[..], &b"first part"[..]));
    let first = first.try_into_lease().unwrap_err();
    drop((reader, foreign));
    assert!(first.try_into_lease().is_ok());
    assert_eq!(pool.stats().blocks, 0);
}

#[test]
fn a_block_goes_back_with_its_last_window() {
    let pool = arena(1 << 20);
    let mut lease = pool.acquire(100, 100).unwrap();
    let shared = lease.split_to(50).freeze();
    let clone = shared.clone();
    drop(lease);
    drop(shared);
    assert_eq!(pool.stats().blocks, 1);
    let mut again = clone.try_into_lease().unwrap();
    assert!(again.reclaim());
    assert_eq!(again.len(), again.block_len());
    drop(again);
    assert_eq!(pool.stats().blocks, 0);
}

#[test]
fn memory_outlives_its_pool_while_it_is_leased() {
    let pool = arena(1 << 20);
    let mut lease = pool.acquire(5, 5).unwrap();
    drop(pool);
    lease.copy_from_slice(b"still");
    assert_eq!(&*lease.freeze(), b"still");
}

#[test]
#[cfg(all(target_os = "linux", not(miri)))]
fn only_touched_pages_are_paid_for() {
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
    let before = resident();
    let pool = arena(1 << 30);
    let mut leases: Vec<_> = (0..16).map(|_| pool.acquire(1 << 20, 1 << 20).unwrap()).collect();
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes are resident for leases that nobody touched");
    for lease in &mut leases {
        lease.fill(1);
    }
    assert!(resident() - before > 15 << 20);
}

#[test]
fn a_wish_is_refused_only_when_nothing_that_waits_could_be_merged_for_it() {
    let pool = arena(1 << 20);
    let small: Vec<_> = std::iter::from_fn(|| pool.acquire(BLOCK_BYTES_MIN, 0)).collect();
    assert_eq!(small.len(), (1 << 20) / BLOCK_BYTES_MIN);
    assert_eq!(pool.stats().in_use_bytes, 1 << 20);
    drop(small);
    let refused = pool.stats().refused;
    let whole = pool.acquire(1 << 20, 0).unwrap();
    assert_eq!(pool.stats().refused, refused);
    assert!(pool.acquire(0, 0).is_none());
    drop(whole);
    assert!(pool.acquire((1 << 20) + 1, 0).is_none());
    assert!(pool.acquire(usize::MAX, usize::MAX).is_none());
    assert_eq!(pool.stats().refused, refused + 3);
}

#[test]
fn every_second_block_in_use_leaves_the_other_half_for_small_wishes() {
    let pool = arena(1 << 20);
    let mut blocks: Vec<_> = std::iter::from_fn(|| pool.acquire(4096, 0)).collect();
    assert_eq!(blocks.len(), 256);
    let mut number = 0;
    blocks.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    assert!(pool.acquire(4097, 0).is_none());
    let others: Vec<_> = std::iter::from_fn(|| pool.acquire(4096, 1 << 20)).collect();
    assert_eq!(others.len(), 128);
    drop((blocks, others));
    assert!(pool.acquire(1 << 20, 0).is_some());
}

#[test]
fn a_lease_of_no_bytes_has_the_smallest_block() {
    let pool = arena(1 << 20);
    let lease = pool.acquire(0, 0).unwrap();
    assert!(lease.is_empty());
    assert_eq!(lease.block_len(), BLOCK_BYTES_MIN);
}

#[test]
fn blocks_that_wait_give_way_to_a_lease_that_grows() {
    let pool = arena(1 << 20);
    let mut lease = pool.acquire(4096, 0).unwrap();
    let address = lease.as_mut_ptr();
    drop(pool.acquire(4096, 0).unwrap());
    assert!(pool.grow(&mut lease, 4096, 8192));
    assert_eq!(lease.as_mut_ptr(), address);
    assert_eq!(pool.stats().grown_in_place, 1);
    assert_eq!(pool.stats().in_use_bytes, 8192);
}

#[test]
fn a_refused_growth_changes_nothing() {
    let pool = arena(64 << 10);
    let other = arena(64 << 10);
    let mut lease = pool.acquire(32 << 10, 0).unwrap();
    lease.fill(9);
    let _rest = pool.acquire(32 << 10, 0).unwrap();
    assert!(!pool.grow(&mut lease, 1, 64 << 10));
    assert!(!other.grow(&mut lease, 1, 10));
    assert_eq!(lease.len(), 32 << 10);
    assert!(lease.iter().all(|byte| *byte == 9));
    assert!(pool.grow(&mut lease, 1, 10));
    assert_eq!(lease.len(), 10);
    assert_eq!(pool.stats().grown_in_place, 0);
}

#[test]
fn a_handle_keeps_nothing_that_another_one_needs() {
    let pool = arena(1 << 20);
    let again = pool.clone();
    let lease = pool.acquire(100, 0).unwrap();
    drop(pool);
    assert_eq!(again.stats().blocks, 1);
    drop(again);
    let shared = lease.freeze();
    assert_eq!(shared.slice(10, 20).len(), 10);
}

#[test]
fn too_many_windows_of_a_block_panic_before_they_are_counted() {
    let pool = arena(1 << 20);
    let shared = pool.acquire(100, 0).unwrap().freeze();
    pool.inner().refs(0).set(u32::MAX);
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.clone()));
    assert!(again.is_err());
    assert_eq!(pool.inner().refs(0).get(), u32::MAX);
    pool.inner().refs(0).set(1);
}

#[test]
fn a_slice_is_within_its_window() {
    let pool = arena(1 << 20);
    let shared = pool.acquire(100, 0).unwrap().freeze();
    assert_eq!(shared.slice(0, 100).len(), 100);
    assert!(shared.slice(100, 100).is_empty());
    for (from, to) in [(0, 101), (60, 50), (101, 101), (usize::MAX, 0)] {
        let part = std::panic::AssertUnwindSafe(|| shared.slice(from, to));
        assert!(std::panic::catch_unwind(part).is_err(), "{from}..{to}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "there the memory is not reserved but taken")]
fn many_largest_blocks_lie_side_by_side() {
    // Address space only: nothing of it is touched but the entries of blocks.
    let pool = arena((5 << 30) + (3 << 16));
    let blocks: Vec<_> = std::iter::from_fn(|| pool.acquire(2 << 30, usize::MAX)).collect();
    assert_eq!(blocks.len(), 2);
    assert_eq!(pool.acquire(1 << 30, 0).unwrap().len(), 1 << 30);
    assert!(pool.acquire((2 << 30) + 1, 0).is_none());
    drop(blocks);
    assert_eq!(pool.inner().free_blocks().len(), 5);
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(usize, usize),
    Grow(usize, usize),
    Split(usize, usize),
    Join(usize, usize),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![0usize..300, 0usize..20_000, 0usize..60_000];
    prop_oneof![
        (size.clone(), size.clone()).prop_map(|(len, more)| Step::Acquire(len, len + more)),
        (any::<usize>(), size.clone()).prop_map(|(pick, more)| Step::Grow(pick, more)),
        (any::<usize>(), any::<usize>()).prop_map(|(pick, at)| Step::Split(pick, at)),
        (any::<usize>(), any::<usize>()).prop_map(|(pick, other)| Step::Join(pick, other)),
        any::<usize>().prop_map(Step::Drop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 48 }))]

    /// Every lease keeps its own bytes whatever happens to the others, and at the end the
    /// memory is as it was at first.
    #[test]
    fn leases_never_overlap(steps in prop::collection::vec(step(), 1..200)) {
        let pool = arena((1 << 20) + (1 << 18));
        let fresh = pool.inner().free_blocks();
        let mut leases: Vec<(Lease, u8)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let mark = number as u8;
            match step {
                Step::Acquire(len, expected) => {
                    if let Some(mut lease) = pool.acquire(len, expected) {
                        prop_assert_eq!(lease.len(), len);
                        lease.fill(mark);
                        leases.push((lease, mark));
                    }
                }
                Step::Grow(pick, more) if !leases.is_empty() => {
                    let at = pick % leases.len();
                    let (lease, mark) = &mut leases[at];
                    let used = lease.len();
                    if pool.grow(lease, used, used + more) {
                        prop_assert_eq!(lease.len(), used + more);
                        prop_assert!(lease[..used].iter().all(|byte| byte == mark));
                        lease.fill(*mark);
                    }
                }
                Step::Split(pick, at) if !leases.is_empty() => {
                    let index = pick % leases.len();
                    let (lease, mark) = &mut leases[index];
                    let tail = lease.split_off(at % (lease.len() + 1));
                    let mark = *mark;
                    leases.push((tail, mark));
                }
                Step::Join(pick, other) if leases.len() > 1 => {
                    let (tail, tail_mark) = leases.swap_remove(pick % leases.len());
                    let index = other % leases.len();
                    if leases[index].1 != tail_mark {
                        leases.push((tail, tail_mark));
                    } else if let Err(tail) = leases[index].0.unsplit(tail) {
                        leases.push((tail, tail_mark));
                    }
                }
                Step::Drop(pick) if !leases.is_empty() => {
                    leases.swap_remove(pick % leases.len());
                }
                _ => {}
            }
            let mut blocks = std::collections::BTreeMap::new();
            for (lease, mark) in &leases {
                prop_assert!(lease.iter().all(|byte| byte == mark));
                blocks.insert(lease.block(), lease.block_len());
            }
            prop_assert_eq!(pool.stats().blocks, blocks.len());
            prop_assert_eq!(pool.stats().in_use_bytes, blocks.values().sum::<usize>());
        }
        drop(leases);
        prop_assert_eq!(pool.stats().in_use_bytes, 0);
        prop_assert_eq!(pool.stats().blocks, 0);
        prop_assert_eq!(pool.inner().free_blocks(), fresh);
    }
}
