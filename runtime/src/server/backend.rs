//! Which reactor a shard gets: the ladder from io_uring down to epoll, climbed once per thread.

use hioload_pools::Arena;

use crate::config::{Config, ReactorChoice, TierChoice};
use crate::reactor::epoll::{Epoll, EpollConfig};
use crate::reactor::uring::{Tier, Uring, UringConfig};

/// The reactor of a shard.
pub(super) enum Backend {
    Uring(Box<Uring>),
    Epoll(Box<Epoll>),
}

/// A reactor and why it was chosen.
pub(super) struct Choice {
    pub(super) backend: Backend,
    /// `uring (incremental)`, `epoll`.
    pub(super) name: String,
    /// Why it is not the best one, if it is not.
    pub(super) fallback: Option<String>,
}

/// Sockets beside the connections that a reactor must have room for: the listeners.
const SPARE_SOCKETS: usize = 64;

/// Chooses by trying. `auto` falls back to epoll; a reactor that was asked for by name is a
/// demand.
pub(super) fn choose(config: &Config, pool: &Arena) -> Result<Choice, String> {
    match config.server.reactor {
        ReactorChoice::Uring => uring(config, pool),
        ReactorChoice::Epoll => epoll(config, pool, None),
        ReactorChoice::Auto => {
            uring(config, pool).or_else(|cause| epoll(config, pool, Some(cause)))
        }
    }
}

fn uring(config: &Config, pool: &Arena) -> Result<Choice, String> {
    let wanted = UringConfig {
        entries: config.uring.entries,
        buffers: config.memory.buffers,
        buffer_bytes: config.memory.buffer_bytes,
        sockets_max: config.limits.connections_max + SPARE_SOCKETS,
        tier: tier(config.server.uring_tier),
        pool: pool.clone(),
    };
    let uring = Uring::new(wanted).map_err(|error| error.to_string())?;
    let name = format!("uring ({})", uring.tier());
    Ok(Choice { backend: Backend::Uring(Box::new(uring)), name, fallback: None })
}

const fn tier(choice: TierChoice) -> Option<Tier> {
    match choice {
        TierChoice::Auto => None,
        TierChoice::Base => Some(Tier::Base),
        TierChoice::Bundles => Some(Tier::Bundles),
        TierChoice::Incremental => Some(Tier::Incremental),
    }
}

fn epoll(config: &Config, pool: &Arena, fallback: Option<String>) -> Result<Choice, String> {
    let wanted = EpollConfig {
        buffers: config.memory.buffers,
        buffer_bytes: config.memory.buffer_bytes,
        sockets_max: config.limits.connections_max + SPARE_SOCKETS,
        pool: pool.clone(),
    };
    let epoll = Epoll::new(wanted).map_err(|error| format!("epoll cannot be set up: {error}"))?;
    Ok(Choice { backend: Backend::Epoll(Box::new(epoll)), name: "epoll".to_owned(), fallback })
}
