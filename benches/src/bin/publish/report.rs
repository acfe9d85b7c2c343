//! What was measured, as a table for people or as JSON.

use std::fmt::Write;

use hioload_benches::figures::{Spread, ratios};
use serde_json::{Value, json};

use crate::load::Sample;

/// What one server did: a sample per round, or why there is none.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) samples: Result<Vec<Sample>, String>,
}

/// All servers, and how they were measured.
pub(crate) struct Report {
    pub(crate) about: String,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// The server that the others are compared with: the first that was measured.
    fn base(&self) -> Option<(&'static str, &[Sample])> {
        self.rows.iter().find_map(|row| Some((row.name, row.samples.as_deref().ok()?)))
    }

    pub(crate) fn table(&self) -> String {
        let (base_name, base) = self.base().unwrap_or(("nothing", &[]));
        let mut text = format!("{}\n\nratios to {base_name}\n", self.about);
        let _ = writeln!(
            text,
            "{:<20} {:<20} {:<20} {:>5} {:>12}  {:<18} wall",
            "server", "ns CPU / subscriber", "ms until all have it", "busy", "subscribers", "CPU"
        );
        for row in &self.rows {
            let _ = match &row.samples {
                Ok(samples) => writeln!(text, "{:<20} {}", row.name, figures(samples, base)),
                Err(reason) => writeln!(text, "{:<20} not measured: {reason}", row.name),
            };
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let (base_name, base) = self.base().unzip();
        let rows = self.rows.iter().map(|row| match &row.samples {
            Ok(samples) => row_json(row.name, samples, base.unwrap_or_default()),
            Err(reason) => json!({ "server": row.name, "not_measured": reason }),
        });
        let rows: Vec<Value> = rows.collect();
        json!({ "about": self.about, "base": base_name, "servers": rows }).to_string()
    }
}

fn row_json(name: &str, samples: &[Sample], base: &[Sample]) -> Value {
    json!({
        "server": name,
        "cpu_ns_per_subscriber": value(spread(samples, |sample| sample.cpu_ns)),
        "wall_ms": value(spread(samples, |sample| sample.wall_ms)),
        "busy": value(spread(samples, |sample| sample.busy)),
        "client_busy": value(spread(samples, |sample| sample.client_busy)),
        "cpu_ratio": value(Spread::of(ratios(samples, base, |sample| sample.cpu_ns))),
        "wall_ratio": value(Spread::of(ratios(samples, base, |sample| sample.wall_ms))),
    })
}

fn figures(samples: &[Sample], base: &[Sample]) -> String {
    format!(
        "{:<20} {:<20} {:>4.0}% {:>11.0}%  {:<18} {}",
        text(spread(samples, |sample| sample.cpu_ns), 0),
        text(spread(samples, |sample| sample.wall_ms), 1),
        spread(samples, |sample| sample.busy).median * 100.0,
        spread(samples, |sample| sample.client_busy).median * 100.0,
        text(Spread::of(ratios(samples, base, |sample| sample.cpu_ns)), 2),
        text(Spread::of(ratios(samples, base, |sample| sample.wall_ms)), 2),
    )
}

fn spread(samples: &[Sample], figure: fn(&Sample) -> f64) -> Spread {
    Spread::of(samples.iter().map(figure))
}

fn text(Spread { median, min, max }: Spread, digits: usize) -> String {
    format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
}

fn value(Spread { median, min, max }: Spread) -> Value {
    json!({ "median": median, "min": min, "max": max })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Report, Row};
    use crate::load::Sample;

    fn samples(times: &[f64]) -> Vec<Sample> {
        let sample =
            |&time| Sample { cpu_ns: time, wall_ms: time / 100.0, busy: 1.0, client_busy: 0.5 };
        times.iter().map(sample).collect()
    }

    fn report() -> Report {
        let rows = vec![
            Row { name: "a", samples: Err("no \"sources\"".to_owned()) },
            Row { name: "b", samples: Ok(samples(&[1000.0, 4000.0, 2000.0])) },
            Row { name: "c", samples: Ok(samples(&[2000.0, 2000.0, 2000.0])) },
        ];
        Report { about: "here".to_owned(), rows }
    }

    #[test]
    fn the_table_has_medians_and_ends_of_figures_and_of_the_rounds_ratios() {
        let table = report().table();
        assert!(table.contains("ratios to b\n"), "{table}");
        assert!(table.contains("a                    not measured: no \"sources\"\n"), "{table}");
        assert!(table.contains("2000 (1000..4000)"), "{table}");
        assert!(table.contains("20.0 (10.0..40.0)"), "{table}");
        assert!(table.contains("1.00 (0.50..2.00)"), "{table}");
    }

    #[test]
    fn the_json_has_the_same() {
        let json: Value = serde_json::from_str(&report().json()).expect("it is JSON");
        assert_eq!((&json["about"], &json["base"]), (&json!("here"), &json!("b")));
        let [missing, _, own] = &json["servers"].as_array().expect("a row for each")[..] else {
            panic!("three rows are wanted: {json}");
        };
        assert_eq!(missing["not_measured"], "no \"sources\"");
        assert_eq!(own["cpu_ratio"], json!({ "median": 1.0, "min": 0.5, "max": 2.0 }));
        assert_eq!(own["wall_ms"]["median"], 20.0);
    }
}
