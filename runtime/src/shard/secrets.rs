//! Randomness that nobody can guess: masks and nonces of the connections that we open.

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// A generator that is seeded once per shard and then makes no system call.
///
/// Masks must come from a strong source of entropy (RFC 6455 section 5.3), and nonces as well
/// (section 4.1). The numbers of [`Shard::random`](super::Shard::random) will not do: who sees one
/// of them knows those that follow.
pub(crate) struct Secrets(Box<ChaCha12Rng>);

impl Secrets {
    /// Generates from this seed alone: for tests and simulation.
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(Box::new(ChaCha12Rng::from_seed(seed)))
    }

    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
