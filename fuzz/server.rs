//! The targets of the runtime: its configuration, sessions, and a whole shard, over the simulated
//! network of [`hioload::testkit`]. The corpus runs through the same functions in `cargo test`
//! (`runtime/tests/fuzz_corpus.rs`).

#![allow(dead_code)] // each target is one of them

use hioload::config::{CompressionMode, Config, ConfigError, SlowReader};

#[path = "session.rs"]
pub(crate) mod session;
#[path = "shard.rs"]
pub(crate) mod shard;

/// A configuration: any text.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::from_toml(text, "fuzz.toml") {
        Ok(config) => {
            config.check().expect("what was read has been checked");
            let written = config.to_toml();
            let again = Config::from_toml(&written, "written.toml");
            assert_eq!(again.expect("what we write can be read"), config);
        }
        Err(error) => assert_one_sentence(&error, text),
    }
}

/// It names a line of the file, and whatever is quoted from it stays on the line of the error.
fn assert_one_sentence(error: &ConfigError, text: &str) {
    let said = error.to_string();
    assert!(!said.chars().any(char::is_control), "{said:?}");
    assert!(said.len() <= text.len() + 1000, "{} bytes for {}", said.len(), text.len());
    if let Some(rest) = said.strip_prefix("fuzz.toml:") {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let line: usize = digits.parse().expect("the number of a line");
        assert!((1..=1 + text.matches('\n').count()).contains(&line), "{said}");
    }
}

/// Small limits and short times, so that few bytes reach them.
fn limits(settings: u8) -> Config {
    let mut config = Config::default();
    (config.memory.buffers, config.memory.buffer_bytes) = (4, 4096);
    config.memory.pool_bytes = 1 << 20;
    config.limits.connections_max = 8;
    config.limits.handshakes_max = 4;
    config.limits.handshake_timeout_ms = 500;
    config.limits.header_bytes_max = 512;
    config.limits.headers_max = 8;
    config.websocket.message_bytes_max = 16 * 1024;
    config.websocket.fragments_max = 16;
    config.websocket.message_age_ms_max = 300;
    config.websocket.overhead_budget_bytes = 1024;
    config.websocket.idle_timeout_ms = 2000;
    config.websocket.progress_timeout_ms = 1000;
    config.websocket.close_timeout_ms = 200;
    config.websocket.outbox_low_bytes = 512;
    config.websocket.outbox_high_bytes = 4096;
    config.websocket.outbox_max_bytes = 24 * 1024;
    config.websocket.slow_reader =
        [SlowReader::Pause, SlowReader::Drop, SlowReader::Close][usize::from(settings % 3)];
    config.websocket.compression = match (settings >> 2) % 3 {
        0 => CompressionMode::Off,
        1 => CompressionMode::NoContext,
        _ => CompressionMode::DedicatedWindow,
    };
    config.websocket.compression_bytes_min = 16;
    config.shutdown.drain_ms = 400;
    config
}
