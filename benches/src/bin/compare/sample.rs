//! What the load generator says of one measurement.

use serde_json::Value;

use crate::points::Work;

/// One server at one point in one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Messages that came back per second.
    pub(crate) speed: f64,
    /// Processor time of the server per message, in microseconds.
    pub(crate) cpu_us: f64,
    /// The middle of the round trips, in microseconds.
    pub(crate) p50_us: f64,
    /// What 99 of 100 round trips were below, in microseconds.
    pub(crate) p99_us: f64,
    /// Memory of the server per connection that sends nothing.
    pub(crate) idle_bytes: f64,
    /// How much of their cores the server and the clients used.
    pub(crate) busy: f64,
    pub(crate) load_busy: f64,
    /// Whether the clients had no time left and the server had: what was measured are the clients.
    pub(crate) is_load_bound: bool,
    /// All that was said.
    pub(crate) raw: Value,
}

impl Sample {
    /// Reads what was printed for a point of this kind.
    pub(crate) fn read(text: &str, work: Work) -> Result<Self, String> {
        let raw: Value = serde_json::from_str(text)
            .map_err(|error| format!("the load generator printed no JSON: {error}"))?;
        let number = |path: &str| {
            let value = raw.pointer(path).and_then(Value::as_f64);
            value.ok_or_else(|| format!("the load generator printed no number at {path}"))
        };
        if work == Work::Idle {
            let idle_bytes = number("/idle/bytes_per_connection")?;
            return Ok(Self {
                speed: f64::NAN,
                cpu_us: f64::NAN,
                p50_us: f64::NAN,
                p99_us: f64::NAN,
                idle_bytes,
                busy: f64::NAN,
                load_busy: f64::NAN,
                is_load_bound: false,
                raw,
            });
        }
        let speed = number("/messages_per_s")?;
        if speed <= 0.0 {
            return Err("it answered no message".to_owned());
        }
        let cpu_us = number("/server_cpu_us_per_message")?;
        let own_cpu_us = number("/self_cpu_us_per_message")?;
        let is_load_bound = raw["bottleneck"]
            .as_bool()
            .ok_or("the load generator did not say whether it was the bottleneck")?;
        Ok(Self {
            speed,
            cpu_us,
            p50_us: number("/latency_us/p50")?,
            p99_us: number("/latency_us/p99")?,
            idle_bytes: f64::NAN,
            busy: cpu_us * speed / 1e6,
            load_busy: own_cpu_us * speed / 1e6,
            is_load_bound,
            raw,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;
    use crate::points::{Pace, Work};

    const ECHO: Work = Work::Echo { in_flight: 1, bytes: 20, pace: Pace::Replies };

    const SAID: &str = r#"{"messages_per_s":200000,"latency_us":{"p50":4.5,"p99":9},
        "server_cpu_us_per_message":4,"self_cpu_us_per_message":3,"bottleneck":true}"#;

    #[test]
    fn what_the_load_generator_says_is_read() {
        let sample = Sample::read(SAID, ECHO).unwrap();
        assert_eq!((sample.speed, sample.cpu_us), (200_000.0, 4.0));
        assert_eq!((sample.p50_us, sample.p99_us), (4.5, 9.0));
        assert!((sample.busy - 0.8).abs() < 1e-9 && (sample.load_busy - 0.6).abs() < 1e-9);
        assert!(sample.is_load_bound);
        assert!(!Sample::read(&SAID.replace("true", "false"), ECHO).unwrap().is_load_bound);
        let idle = Sample::read(r#"{"idle":{"bytes_per_connection":440}}"#, Work::Idle).unwrap();
        assert_eq!(idle.idle_bytes, 440.0);
    }

    #[test]
    fn what_is_missing_is_named() {
        let problem = Sample::read("{}", ECHO).unwrap_err();
        assert!(problem.ends_with("no number at /messages_per_s"), "{problem}");
        assert!(Sample::read("oops", ECHO).unwrap_err().contains("no JSON"));
        assert!(Sample::read("{}", Work::Idle).unwrap_err().contains("/idle/"));
        let silent = SAID.replace(r#""bottleneck":true"#, r#""a":1"#);
        assert!(Sample::read(&silent, ECHO).unwrap_err().contains("bottleneck"));
        let none = SAID.replace("200000", "0");
        assert_eq!(Sample::read(&none, ECHO).unwrap_err(), "it answered no message");
    }
}
