//! Memory for a thread-per-core server.
//!
//! What lies here belongs to one thread, does not allocate after it was made (or only to grow, in
//! chunks), and answers exhaustion instead of failing: [`Arena`] leases bytes of a [`Region`],
//! [`Slab`] keeps objects under keys that never lie, [`Wheel`] keeps time. The unsafe code of
//! memory is here and nowhere else.
//!
//! What threads share is here as well, small enough for every interleaving to be tried:
//! [`mailbox`], [`Queue`], [`SleepFlag`], [`Budget`].
#![allow(unsafe_code)]

mod arena;
mod budget;
pub mod fake;
mod lease;
pub mod mailbox;
mod numa;
mod pool;
mod queue;
mod region;
mod shared;
mod slab;
mod sleep;
mod sync;
mod wheel;
mod window;

pub use arena::{Arena, ArenaConfig, BLOCK_BYTES_MIN};
pub use budget::Budget;
pub use lease::Lease;
pub use numa::NumaPoolManager;
pub use pool::{BytePool, PoolStats};
pub use queue::{Ended, Queue};
pub use region::{HugePages, Region, RegionError, RegionReport};
pub use shared::Shared;
pub use slab::{Key, ObjectPool, Slab};
pub use sleep::SleepFlag;
pub use wheel::Wheel;
