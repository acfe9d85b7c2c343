//! What was measured, as a table for people or as JSON.

use std::fmt::Write;

use hioload_benches::figures::{Spread, ratios};

use crate::load::Sample;
use crate::script::Mode;

/// What one server did in one setting: a sample per round, or why there is none.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) samples: Result<Vec<Sample>, String>,
}

/// One setting, and all servers in it.
pub(crate) struct Setting {
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) rows: Vec<Row>,
}

/// The ratios of one figure, round by round.
fn ratio(own: &[Sample], base: &[Sample], figure: fn(&Sample) -> f64) -> Spread {
    Spread::of(ratios(own, base, figure))
}

fn text(spread: Spread) -> String {
    format!("{:.2} ({:.2}..{:.2})", spread.median, spread.min, spread.max)
}

fn json(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!(r#"{{"median":{median:.4},"min":{min:.4},"max":{max:.4}}}"#)
}

impl Setting {
    /// The server that the others are compared with: the first that was measured.
    fn base(&self) -> Option<(&'static str, &[Sample])> {
        self.rows.iter().find_map(|row| Some((row.name, row.samples.as_deref().ok()?)))
    }

    pub(crate) fn table(&self) -> String {
        let base = self.base();
        let to = base.map_or("nothing", |(name, _)| name);
        let mut text = format!(
            "{}, {} connections, {} in flight on each; ratios to {to}\n",
            self.mode.name(),
            self.connections,
            self.in_flight
        );
        let _ = writeln!(
            text,
            "{:<24} {:>8} {:>7} {:>5} {:>7} {:>6} {:>8}  {:<19} CPU",
            "server", "msg/s", "us CPU", "busy", "clients", "bytes", "verified", "speed"
        );
        for row in &self.rows {
            let _ = match (&row.samples, base) {
                (Ok(samples), Some((_, base))) => {
                    writeln!(text, "{:<24} {}", row.name, figures(samples, base))
                }
                (Ok(_), None) => Ok(()),
                (Err(reason), _) => writeln!(text, "{:<24} not measured: {reason}", row.name),
            };
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let base = self.base();
        let rows = self.rows.iter().map(|row| match (&row.samples, base) {
            (Ok(samples), Some((_, base))) => format!(
                r#"{{"server":{},"messages_per_second":{},"cpu_us_per_message":{},"busy":{},"client_busy":{},"bytes_per_message":{},"verified":{},"speed_ratio":{},"cpu_ratio":{}}}"#,
                quoted(row.name),
                json(spread(samples, |sample| sample.speed)),
                json(spread(samples, |sample| sample.cpu)),
                json(spread(samples, |sample| sample.busy)),
                json(spread(samples, |sample| sample.client_busy)),
                json(spread(samples, |sample| sample.bytes)),
                json(spread(samples, |sample| sample.verified)),
                json(ratio(samples, base, |sample| sample.speed)),
                json(ratio(samples, base, |sample| sample.cpu)),
            ),
            (samples, _) => {
                let reason = samples.as_ref().err().map_or("nothing to compare with", |text| text);
                format!(
                    r#"{{"server":{},"not_measured":{}}}"#,
                    quoted(row.name),
                    quoted(reason)
                )
            }
        });
        let rows: Vec<String> = rows.collect();
        format!(
            r#"{{"mode":{},"connections":{},"in_flight":{},"base":{},"servers":[{}]}}"#,
            quoted(self.mode.name()),
            self.connections,
            self.in_flight,
            base.map_or_else(|| "null".to_owned(), |(name, _)| quoted(name)),
            rows.join(",")
        )
    }
}

fn spread(samples: &[Sample], figure: fn(&Sample) -> f64) -> Spread {
    Spread::of(samples.iter().map(figure))
}

fn figures(samples: &[Sample], base: &[Sample]) -> String {
    format!(
        "{:>8.0} {:>7.2} {:>4.0}% {:>6.0}% {:>6.0} {:>7.0}%  {:<19} {}",
        spread(samples, |sample| sample.speed).median,
        spread(samples, |sample| sample.cpu).median,
        spread(samples, |sample| sample.busy).median * 100.0,
        spread(samples, |sample| sample.client_busy).median * 100.0,
        spread(samples, |sample| sample.bytes).median,
        spread(samples, |sample| sample.verified).median * 100.0,
        text(ratio(samples, base, |sample| sample.speed)),
        text(ratio(samples, base, |sample| sample.cpu)),
    )
}

/// A string of JSON.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::{Row, Setting, quoted, ratio, text};
    use crate::load::Sample;
    use crate::script::Mode;

    fn sample(speed: f64) -> Sample {
        Sample { speed, cpu: 1e6 / speed, busy: 1.0, client_busy: 0.5, bytes: 450.0, verified: 1.0 }
    }

    #[test]
    fn a_ratio_is_written_with_its_ends() {
        let base = [sample(1.0), sample(10.0), sample(100.0)];
        let own = [sample(2.0), sample(20.0), sample(300.0)];
        assert_eq!(text(ratio(&own, &base, |sample| sample.speed)), "2.00 (2.00..3.00)");
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let rows = vec![
            Row { name: "a", samples: Err("no \"sources\"".to_owned()) },
            Row { name: "b", samples: Ok(vec![sample(2.0)]) },
        ];
        let setting = Setting { mode: Mode::Plain, connections: 2, in_flight: 1, rows };
        assert!(setting.table().contains("a                        not measured: no \"sources\""));
        assert!(setting.table().contains("ratios to b"));
        assert!(setting.json().contains(r#"{"server":"a","not_measured":"no \"sources\""}"#));
        assert_eq!(quoted("a\n"), r#""a\u000a""#);
    }
}
