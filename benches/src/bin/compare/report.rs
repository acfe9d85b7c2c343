//! What was measured, as tables for people and as JSON.

use std::fmt::Write;

use hioload_benches::figures::{Interval, Spread, ratios};
use serde_json::{Value, json};

use crate::config::Protocol;
use crate::points::{Pace, Point, Work};
use crate::sample::Sample;

/// What one server did at one point: a sample per round, or why there is none.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) version: String,
    /// Whether it never slept, at a point that asks for that.
    pub(crate) spun: bool,
    pub(crate) samples: Result<Vec<Sample>, String>,
}

/// One point, and all servers at it.
pub(crate) struct Measured {
    pub(crate) point: Point,
    pub(crate) rows: Vec<Row>,
}

type Figure = fn(&Sample) -> f64;

const FIGURES: [(&str, Figure); 7] = [
    ("messages_per_s", |sample| sample.speed),
    ("server_cpu_us_per_message", |sample| sample.cpu_us),
    ("p50_us", |sample| sample.p50_us),
    ("p99_us", |sample| sample.p99_us),
    ("idle_bytes_per_connection", |sample| sample.idle_bytes),
    ("server_busy", |sample| sample.busy),
    ("load_busy", |sample| sample.load_busy),
];

impl Row {
    fn samples(&self) -> Option<&[Sample]> {
        self.samples.as_deref().ok()
    }

    fn load_bound_rounds(&self) -> usize {
        let samples = self.samples().unwrap_or_default();
        samples.iter().filter(|sample| sample.is_load_bound).count()
    }

    /// What is to be known beside the figures.
    fn notes(&self, rounds: usize) -> String {
        let mut notes = String::new();
        let bound = self.load_bound_rounds();
        if bound > 0 {
            let _ = write!(notes, "  ! the clients were the limit in {bound} of {rounds} rounds");
        }
        if self.spun {
            notes.push_str("  spins");
        }
        notes
    }
}

impl Measured {
    /// The first server of a protocol that was measured: ours, which the others are compared with.
    fn base(&self, protocol: Protocol) -> Option<(&str, &[Sample])> {
        let mut rows = self.rows.iter().filter(|row| row.protocol == protocol);
        rows.find_map(|row| Some((row.name.as_str(), row.samples()?)))
    }

    /// A table per protocol; under the second, what WebSocket costs.
    pub(crate) fn tables(&self) -> String {
        let mut text = format!("{}\n", self.point.title());
        for protocol in [Protocol::WebSocket, Protocol::Tcp] {
            let rows: Vec<_> = self.rows.iter().filter(|row| row.protocol == protocol).collect();
            if rows.is_empty() {
                continue;
            }
            let base = self.base(protocol);
            text.push_str(&self.heading(protocol, base.map_or("nothing", |(name, _)| name)));
            for row in rows {
                text.push_str(&self.line(row, base.map(|(_, samples)| samples)));
            }
        }
        self.protocol_cost(&mut text);
        text
    }

    fn heading(&self, protocol: Protocol, base: &str) -> String {
        let what = match protocol {
            Protocol::WebSocket => "WebSocket",
            Protocol::Tcp => "raw TCP",
        };
        let columns = match self.point.work {
            Work::Idle => format!("{:>10} {:<16} {:<17}", "bytes", "(ends)", "ratio [ends]"),
            Work::Echo { .. } => format!(
                "{:>9} {:<19} {:<17} {:>8} {:<17} {:>8} {:>8} {:<17}",
                "msg/s",
                "(ends)",
                "ratio [ends]",
                "us CPU",
                "ratio [95 %]",
                "p50 us",
                "p99 us",
                "ratio [ends]"
            ),
        };
        format!("{what}; ratios are {base} / server\n  {:<19} {}\n", "server", columns.trim_end())
    }

    fn line(&self, row: &Row, base: Option<&[Sample]>) -> String {
        let (samples, base) = match (&row.samples, base) {
            (Ok(samples), Some(base)) => (samples, base),
            (Err(reason), _) => return format!("  {:<19} not measured: {reason}\n", row.name),
            (Ok(_), None) => return String::new(),
        };
        let spread = |figure: Figure| Spread::of(samples.iter().map(figure));
        let ratio = |figure: Figure| brackets(Spread::of(ratios(base, samples, figure)));
        let figures = if self.point.work == Work::Idle {
            let bytes = spread(|sample| sample.idle_bytes);
            let ends = format!("({:.0}..{:.0})", bytes.min, bytes.max);
            format!("{:>10.0} {ends:<16} {}", bytes.median, ratio(|sample| sample.idle_bytes))
        } else {
            let speed = spread(|sample| sample.speed);
            let ends = format!("({:.0}..{:.0})", speed.min, speed.max);
            format!(
                "{:>9.0} {ends:<19} {:<17} {:>8.3} {:<17} {:>8.1} {:>8.1} {:<17}",
                speed.median,
                ratio(|sample| sample.speed),
                spread(|sample| sample.cpu_us).median,
                interval(&ratios(base, samples, |sample| sample.cpu_us)),
                spread(|sample| sample.p50_us).median,
                spread(|sample| sample.p99_us).median,
                ratio(|sample| sample.p99_us),
            )
        };
        let notes = row.notes(samples.len());
        format!("  {:<19} {}{notes}\n", row.name, figures.trim_end())
    }

    fn protocol_cost(&self, text: &mut String) {
        let (Some((name, websocket)), Some((raw_name, raw))) =
            (self.base(Protocol::WebSocket), self.base(Protocol::Tcp))
        else {
            return;
        };
        let ratio = |figure: Figure| brackets(Spread::of(ratios(websocket, raw, figure)));
        let _ = match self.point.work {
            Work::Idle => {
                writeln!(text, "{name} / {raw_name}: bytes {}", ratio(|sample| sample.idle_bytes))
            }
            Work::Echo { .. } => writeln!(
                text,
                "{name} / {raw_name}: msg/s {}, CPU {}",
                ratio(|sample| sample.speed),
                interval(&ratios(websocket, raw, |sample| sample.cpu_us)),
            ),
        };
    }

    /// Everything, with what the load generator said in every round.
    pub(crate) fn json(&self) -> Value {
        let load = match self.point.work {
            Work::Echo { bytes, pace: Pace::Schedule { per_s }, .. } => {
                json!({ "per_s": per_s, "bytes": bytes })
            }
            Work::Echo { in_flight, bytes, .. } => {
                json!({ "in_flight": in_flight, "bytes": bytes, "spin": self.point.spins() })
            }
            Work::Idle => json!("idle"),
        };
        json!({
            "point": self.point.name,
            "connections": self.point.connections,
            "load": load,
            "servers": self.rows.iter().map(|row| self.row_json(row)).collect::<Vec<_>>(),
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        let samples = match &row.samples {
            Ok(samples) => samples,
            Err(reason) => {
                return json!({
                    "server": row.name, "version": row.version, "not_measured": reason,
                });
            }
        };
        let base = self.base(row.protocol);
        let mut figures = serde_json::Map::new();
        for (name, figure) in FIGURES {
            let spread = Spread::of(samples.iter().map(figure));
            if spread.median.is_nan() {
                continue;
            }
            let pairs = base.map(|(_, base)| ratios(base, samples, figure)).unwrap_or_default();
            let value = json!({
                "median": spread.median, "min": spread.min, "max": spread.max,
                "ratio": ratio_json(&pairs),
            });
            figures.insert(name.to_owned(), value);
        }
        json!({
            "server": row.name,
            "version": row.version,
            "protocol": match row.protocol {
                Protocol::WebSocket => "ws",
                Protocol::Tcp => "tcp",
            },
            "ratios_of": base.map(|(name, _)| name),
            "spun": row.spun,
            "load_bound_rounds": row.load_bound_rounds(),
            "figures": figures,
            "rounds": samples.iter().map(|sample| &sample.raw).collect::<Vec<_>>(),
        })
    }
}

fn ratio_json(pairs: &[f64]) -> Value {
    let spread = Spread::of(pairs.iter().copied());
    let interval = Interval::of_ratios(pairs).map(
        |interval| json!({ "mean": interval.mean, "low": interval.low, "high": interval.high }),
    );
    json!({
        "median": spread.median, "min": spread.min, "max": spread.max, "confidence_95": interval,
    })
}

fn brackets(Spread { median, min, max }: Spread) -> String {
    format!("{} [{}..{}]", short(median), short(min), short(max))
}

/// The mean ratio and where it lies; of one round only the ratio.
fn interval(pairs: &[f64]) -> String {
    match Interval::of_ratios(pairs) {
        Some(Interval { mean, low, high }) => {
            format!("{} [{}..{}]", short(mean), short(low), short(high))
        }
        None => short(Spread::of(pairs.iter().copied()).median),
    }
}

/// A ratio with two digits that tell something.
fn short(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

#[cfg(test)]
mod tests {
    use super::{Measured, Row, short};
    use crate::config::Protocol;
    use crate::points::point;
    use crate::sample::Sample;

    type Samples = Result<Vec<Sample>, String>;

    fn samples(speeds: &[f64], is_load_bound: bool) -> Samples {
        let of = |speed: &f64| {
            let text = format!(
                r#"{{"messages_per_s":{speed},"latency_us":{{"p50":1,"p99":2}},
                   "server_cpu_us_per_message":1,"self_cpu_us_per_message":1,
                   "bottleneck":{is_load_bound}}}"#
            );
            Sample::read(&text, point("c16").unwrap().work)
        };
        speeds.iter().map(of).collect()
    }

    fn measured(rows: Vec<(&str, Protocol, Samples)>) -> Measured {
        let row = |(name, protocol, samples): (&str, _, Samples)| Row {
            name: name.to_owned(),
            protocol,
            version: "1".to_owned(),
            spun: false,
            samples,
        };
        Measured { point: point("c16").unwrap(), rows: rows.into_iter().map(row).collect() }
    }

    #[test]
    fn ratios_are_ours_to_theirs_within_a_round() {
        let ours = samples(&[200.0, 20.0, 300.0], false);
        let theirs = samples(&[100.0, 10.0, 100.0], false);
        let measured = measured(vec![
            ("ours", Protocol::WebSocket, ours),
            ("theirs", Protocol::WebSocket, theirs),
        ]);
        let text = measured.tables();
        assert!(text.contains("ratios are ours / server"), "{text}");
        let line = text.lines().find(|line| line.trim().starts_with("theirs")).unwrap();
        assert!(line.contains("2.00 [2.00..3.00]"), "{line}");
        let json = measured.json();
        assert_eq!(json["servers"][1]["figures"]["messages_per_s"]["ratio"]["median"], 2.0);
        assert_eq!(json["servers"][1]["rounds"][2]["messages_per_s"], 100.0);
    }

    #[test]
    fn a_small_ratio_keeps_its_digits() {
        assert_eq!([1.234, 0.1, 0.0123].map(short), ["1.23", "0.10", "0.012"]);
    }

    #[test]
    fn what_was_not_measured_and_what_the_clients_limited_is_said() {
        let measured = measured(vec![
            ("a", Protocol::WebSocket, Err("no sources".to_owned())),
            ("b", Protocol::WebSocket, samples(&[500_000.0], true)),
            ("raw", Protocol::Tcp, samples(&[1_000_000.0], false)),
        ]);
        let text = measured.tables();
        assert!(text.contains("not measured: no sources"), "{text}");
        assert!(text.contains("ratios are b / server"), "{text}");
        assert!(text.contains("! the clients were the limit in 1 of 1 rounds"), "{text}");
        assert!(text.contains("b / raw: msg/s 0.50 [0.50..0.50], CPU 1.00"), "{text}");
        assert_eq!(measured.json()["servers"][0]["not_measured"], "no sources");
        assert_eq!(measured.json()["servers"][1]["load_bound_rounds"], 1);
    }
}
