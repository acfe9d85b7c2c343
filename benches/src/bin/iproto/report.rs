//! What was measured, as tables for people or as JSON.

use std::fmt::Write;

use hioload_benches::figures::{Spread, ratios};
use serde_json::{Value, json};

use crate::points::{Contender, Point};
use crate::turn::Sample;

/// What one contender did: a sample per round, or why there is none.
pub(crate) struct Row {
    pub(crate) contender: Contender,
    pub(crate) samples: Result<Vec<Sample>, String>,
}

/// All contenders at one load.
pub(crate) struct Table {
    pub(crate) point: Point,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    fn base(&self, row: &Row) -> &[Sample] {
        self.rows[row.contender.base].samples.as_deref().unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{}: {}\n{:<14} {:<10} {:<26} {:>8} {:>9} {:>9}  {}\n",
            self.point.name,
            self.point.about,
            "client",
            "server",
            "calls/s",
            "us/call",
            "client ns",
            "server ns",
            if self.point.is_load() {
                "server CPU to base"
            } else {
                "speed to base       round trip          CPU of the busier end"
            },
        );
        for row in &self.rows {
            let client = row.contender.client_name();
            let server = row.contender.server.name();
            let _ = match &row.samples {
                Ok(samples) => {
                    writeln!(text, "{client:<14} {server:<10} {}", self.figures(row, samples))
                }
                Err(reason) => writeln!(text, "{client:<14} {server:<10} not measured: {reason}"),
            };
        }
        text
    }

    fn figures(&self, row: &Row, samples: &[Sample]) -> String {
        let base = self.base(row);
        let ratio =
            |figure: fn(&Sample) -> f64| words(Spread::of(ratios(samples, base, figure)), 2);
        let told = if self.point.is_load() {
            let base = &self.rows[row.contender.base].contender;
            format!("{} to {}", ratio(|sample| sample.server_ns), base.server.name())
        } else {
            let round_trip = ratio(|sample| 1.0 / sample.calls_per_s);
            format!("{:<19} {round_trip:<19} {}", ratio(speed), ratio(busier))
        };
        format!(
            "{:<26} {:>8.2} {:>9.0} {:>9.0}  {told}",
            words(spread(samples, speed), 0),
            f64::from(self.point.in_flight) * 1e6 / spread(samples, speed).median,
            spread(samples, |sample| sample.client_ns).median,
            spread(samples, |sample| sample.server_ns).median,
        )
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (client, server) = (row.contender.client_name(), row.contender.server.name());
            let samples = match &row.samples {
                Ok(samples) => samples,
                Err(reason) => {
                    return json!({ "client": client, "server": server, "not_measured": reason });
                }
            };
            let base = self.base(row);
            json!({
                "client": client,
                "server": server,
                "calls_per_s": value(spread(samples, speed)),
                "client_cpu_ns_per_call": value(spread(samples, |sample| sample.client_ns)),
                "server_cpu_ns_per_call": value(spread(samples, |sample| sample.server_ns)),
                "speed_ratio": value(Spread::of(ratios(samples, base, speed))),
                "busier_cpu_ratio": value(Spread::of(ratios(samples, base, busier))),
                "server_cpu_ratio": value(Spread::of(ratios(samples, base, |it| it.server_ns))),
                "base": row.contender.base,
            })
        });
        let rows: Vec<Value> = rows.collect();
        json!({ "point": self.point.name, "about": self.point.about, "rows": rows })
    }
}

fn speed(sample: &Sample) -> f64 {
    sample.calls_per_s
}

/// What limits the speed where nothing else runs: the end that needs its core for longer.
fn busier(sample: &Sample) -> f64 {
    sample.client_ns.max(sample.server_ns)
}

fn spread(samples: &[Sample], figure: fn(&Sample) -> f64) -> Spread {
    Spread::of(samples.iter().map(figure))
}

/// A dash where there is nothing to compare with.
fn words(Spread { median, min, max }: Spread, digits: usize) -> String {
    if median.is_nan() {
        return "-".to_owned();
    }
    format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
}

fn value(Spread { median, min, max }: Spread) -> Value {
    json!({ "median": median, "min": min, "max": max })
}

#[cfg(test)]
mod tests {
    use super::{Row, Table};
    use crate::points::POINTS;
    use crate::turn::Sample;

    fn table(point: usize) -> Table {
        let point = POINTS[point];
        let rows = point.contenders().into_iter().enumerate().map(|(place, contender)| {
            let sample = |speed| Sample {
                calls_per_s: speed * (place + 1) as f64,
                client_ns: 1.0,
                server_ns: 100.0 * (place + 1) as f64,
            };
            let samples = Ok([1000.0, 4000.0, 2000.0].map(sample).to_vec());
            Row { contender, samples: if place == 3 { Err("no Go".to_owned()) } else { samples } }
        });
        Table { point, rows: rows.collect() }
    }

    #[test]
    fn ratios_are_to_go_and_those_of_servers_to_bare_bytes() {
        let text = table(0).text();
        assert!(text.contains("go             go         2000 (1000..4000)"), "{text}");
        assert!(text.contains("2.00 (2.00..2.00)   0.50 (0.50..0.50)   2.00"), "{text}");
        assert!(text.contains("uring      not measured: no Go"), "{text}");
        let text = table(3).text();
        assert!(text.contains("2.00 (2.00..2.00) to uring/raw"), "{text}");
    }

    #[test]
    fn without_a_base_there_are_no_ratios() {
        let mut table = table(0);
        table.rows[0].samples = Err("no Go".to_owned());
        let text = table.text();
        let row = text.lines().nth(3).expect("it has a second row");
        assert_eq!(row.split_whitespace().rev().take(3).collect::<String>(), "---", "{row}");
        assert!(table.json()["rows"][1]["speed_ratio"]["median"].is_null());
    }

    #[test]
    fn the_json_has_the_same() {
        let json = table(0).json();
        assert_eq!(json["rows"][1]["speed_ratio"]["median"], 2.0);
        assert_eq!(json["rows"][3]["not_measured"], "no Go");
        assert_eq!(table(3).json()["rows"][1]["server_cpu_ratio"]["max"], 2.0);
    }
}
