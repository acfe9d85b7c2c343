//! Checks of values that are to be judged only together.

use super::sections::Config;
use super::{ConfigError, Place, ReactorChoice, TierChoice};

/// Something wrong with a configuration that was read.
pub(super) struct Finding {
    /// The key, with its section.
    pub(super) key: &'static str,
    /// The key that it does not fit, if that is what is wrong.
    pub(super) other: Option<&'static str>,
    problem: String,
}

impl Finding {
    pub(super) fn at(self, place: Place) -> ConfigError {
        ConfigError::Value { place, key: self.key, problem: self.problem }
    }
}

/// Every range first, then what must fit together.
pub(super) fn check(config: &Config) -> Result<(), Finding> {
    for (key, value) in Config::KEYS.iter().zip(config.values()) {
        value.check(key).map_err(|problem| Finding { key: key.path, other: None, problem })?;
    }
    powers_of_two(config)?;
    reactor(config)?;
    pool(config)?;
    outbox(config)?;
    idle_timeout(config)
}

/// Provided buffers and rings are indexed with a mask, and the pool's blocks are halves of halves.
fn powers_of_two(config: &Config) -> Result<(), Finding> {
    let values = [
        ("memory.buffers", config.memory.buffers),
        ("memory.buffer_bytes", config.memory.buffer_bytes),
        ("uring.entries", config.uring.entries as usize),
    ];
    match values.into_iter().find(|(_, value)| !value.is_power_of_two()) {
        Some((key, value)) => {
            let next = value.next_power_of_two();
            let problem = format!("must be a power of two, but is {value}: write {next}");
            Err(Finding { key, other: None, problem })
        }
        None => Ok(()),
    }
}

fn reactor(config: &Config) -> Result<(), Finding> {
    let tier = config.server.uring_tier;
    if config.server.reactor != ReactorChoice::Epoll || tier == TierChoice::Auto {
        return Ok(());
    }
    let problem = format!(
        "asks for \"{tier}\" of io_uring, but `server.reactor` is \"epoll\": remove one of them"
    );
    Err(Finding { key: "server.uring_tier", other: Some("server.reactor"), problem })
}

/// Receive buffers lie in the pool for good; a message that grows needs its old and its new block
/// at once.
fn pool(config: &Config) -> Result<(), Finding> {
    let memory = &config.memory;
    let buffers = memory.buffers.saturating_mul(memory.buffer_bytes);
    let message = config.websocket.message_bytes_max.next_power_of_two();
    let needed = buffers.saturating_add(message.saturating_mul(2));
    if memory.pool_bytes >= needed {
        return Ok(());
    }
    let problem = format!(
        "is {}, but the receive buffers ({} x {}) and one message of `websocket.message_bytes_max` \
         that grows need {needed}: raise it, or lower one of those",
        memory.pool_bytes, memory.buffers, memory.buffer_bytes
    );
    Err(Finding { key: "memory.pool_bytes", other: Some("websocket.message_bytes_max"), problem })
}

/// A session that is not yet full takes any legal message, and one that was full can drain.
fn outbox(config: &Config) -> Result<(), Finding> {
    let websocket = &config.websocket;
    let (low, high) = (websocket.outbox_low_bytes, websocket.outbox_high_bytes);
    if low > high {
        return Err(Finding {
            key: "websocket.outbox_low_bytes",
            other: Some("websocket.outbox_high_bytes"),
            problem: format!(
                "is {low}, but must not be above `websocket.outbox_high_bytes`, which is {high}"
            ),
        });
    }
    let needed = websocket.message_bytes_max.saturating_add(high);
    if websocket.outbox_max_bytes < needed {
        return Err(Finding {
            key: "websocket.outbox_max_bytes",
            other: Some("websocket.message_bytes_max"),
            problem: format!(
                "is {}, but must be at least {needed}: `websocket.message_bytes_max` and \
                 `websocket.outbox_high_bytes` together",
                websocket.outbox_max_bytes
            ),
        });
    }
    Ok(())
}

/// The ping goes out at half of it, which must be later than at once.
fn idle_timeout(config: &Config) -> Result<(), Finding> {
    match config.websocket.idle_timeout_ms {
        1 => Err(Finding {
            key: "websocket.idle_timeout_ms",
            other: None,
            problem: "must be 0 (never) or at least 2, but is 1".to_owned(),
        }),
        _ => Ok(()),
    }
}
