//! A set of small numbers with a quick "which is the smallest": a tree of words.
//!
//! A bit in a word of level n says whether the word below it, of level n - 1, has any bit. So
//! insert, remove and first touch at most one word per level: four for an arena of 256 MiB.
//! The words belong to the caller (they lie in lazily touched memory) and start out as zero.

use std::cell::Cell;

/// Levels that suffice for 2^32 members.
const LEVELS_MAX: usize = 6;

/// Where the words of one set lie among the caller's words.
pub(super) struct BitTree {
    /// First word of each level, the members' own level first.
    base: [u32; LEVELS_MAX],
    levels: usize,
}

impl BitTree {
    /// Plans a set of members below `members`, with its words starting at `first_word`; returns
    /// it and the first word behind it.
    pub(super) fn plan(members: u64, first_word: u32) -> (Self, u32) {
        let mut base = [0; LEVELS_MAX];
        let (mut levels, mut next, mut bits) = (0, first_word, members);
        loop {
            let words = bits.div_ceil(64).max(1);
            base[levels] = next;
            next += u32::try_from(words).expect("a set has at most 2^32 members");
            levels += 1;
            bits = words;
            if words == 1 {
                return (Self { base, levels }, next);
            }
        }
    }

    pub(super) fn contains(&self, words: &[Cell<u64>], member: u32) -> bool {
        words[self.base[0] as usize + (member >> 6) as usize].get() >> (member & 63) & 1 == 1
    }

    pub(super) fn insert(&self, words: &[Cell<u64>], member: u32) {
        let mut at = member;
        for base in &self.base[..self.levels] {
            let word = &words[*base as usize + (at >> 6) as usize];
            let before = word.get();
            word.set(before | 1 << (at & 63));
            if before != 0 {
                return;
            }
            at >>= 6;
        }
    }

    /// Returns whether the set is empty now.
    pub(super) fn remove(&self, words: &[Cell<u64>], member: u32) -> bool {
        let mut at = member;
        for base in &self.base[..self.levels] {
            let word = &words[*base as usize + (at >> 6) as usize];
            let after = word.get() & !(1 << (at & 63));
            word.set(after);
            if after != 0 {
                return false;
            }
            at >>= 6;
        }
        true
    }

    /// The smallest member. The set must not be empty.
    pub(super) fn first(&self, words: &[Cell<u64>]) -> u32 {
        let mut at = 0;
        for base in self.base[..self.levels].iter().rev() {
            let word = words[*base as usize + at as usize].get();
            debug_assert_ne!(word, 0, "the level above says that there is a member");
            at = at << 6 | word.trailing_zeros();
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agrees_with_a_sorted_set() {
        let members = 70_000;
        let (_, offset) = BitTree::plan(10, 0);
        let (tree, words) = BitTree::plan(members, offset);
        let words = vec![Cell::new(0); words as usize];
        let mut model = BTreeSet::new();
        let mut random = 1_u64;
        for _ in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let member = ((random >> 33) % members) as u32;
            if model.remove(&member) {
                assert!(tree.contains(&words, member));
                assert_eq!(tree.remove(&words, member), model.is_empty());
            } else {
                assert!(!tree.contains(&words, member));
                tree.insert(&words, member);
                model.insert(member);
            }
            if let Some(first) = model.first() {
                assert_eq!(tree.first(&words), *first);
            }
        }
        while let Some(first) = model.pop_first() {
            assert_eq!(tree.first(&words), first);
            assert_eq!(tree.remove(&words, first), model.is_empty());
        }
        assert!(words.iter().all(|word| word.get() == 0));
    }

    #[test]
    fn every_size_of_a_level_is_planned_with_one_word_on_top() {
        for (members, words) in [(1, 1), (64, 1), (65, 3), (4096, 65), (4097, 65 + 2 + 1)] {
            assert_eq!(BitTree::plan(members, 0).1, words, "{members} members");
        }
        let (tree, _) = BitTree::plan(1 << 32, 0);
        assert_eq!(tree.levels, LEVELS_MAX);
    }
}
