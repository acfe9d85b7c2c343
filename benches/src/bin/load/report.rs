//! The report for a person at a terminal.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::summary::{Idle, Summary};
use crate::tally::Tally;
use crate::worker::Plan;

const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];
/// The widest bar of the histogram.
const BAR_WIDTH: f64 = 40.0;
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// Rows of it that hold less than this share of the messages are left out at both ends.
const SHARE_MIN: f64 = 0.0001;
/// A schedule that is no further behind has just been late in the last moment.
const BEHIND_S_MIN: f64 = 0.01;

pub(crate) fn text(plan: &Plan, summary: &Summary<'_>, tally: &Tally) -> String {
    let mut text = head(plan, summary);
    if tally.latency.is_empty() {
        text += "\nNothing came back in the time that was measured.";
        return text;
    }
    text += &format!("\n{}\n{}\n", latency(&tally.latency), bars(&tally.latency));
    text += &costs(summary, tally);
    if let Some(idle) = &summary.idle {
        text += &idle_memory(idle);
    }
    text += &remarks(plan, summary, tally);
    text.truncate(text.trim_end().len());
    text
}

fn head(plan: &Plan, summary: &Summary<'_>) -> String {
    let per_s = |bytes: u64| bytes as f64 / 1e6 / summary.duration_s.max(f64::MIN_POSITIVE);
    let mut text = String::new();
    let _ = writeln!(text, "{}", plan.door.target.url);
    row(&mut text, "connections", &grouped(summary.connections as u64));
    let time = format!("{:.2} s", summary.duration_s);
    row(&mut text, "measured", &time);
    let check = if summary.verified { "every reply verified" } else { "replies not verified" };
    row(&mut text, "messages", &format!("{}, {check}", grouped(summary.messages)));
    row(&mut text, "messages/s", &grouped(summary.messages_per_s.round() as u64));
    let (out, back) = (per_s(summary.bytes_out), per_s(summary.bytes_in));
    row(&mut text, "MB/s", &format!("{out:.2} out, {back:.2} in"));
    text
}

fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<13} {value}");
}

fn latency(histogram: &Histogram<u64>) -> String {
    let quantiles =
        QUANTILES.map(|(name, quantile)| (name, histogram.value_at_quantile(quantile) as f64));
    let ends = [("min", histogram.min() as f64), ("mean", histogram.mean())];
    let all = ends.into_iter().chain(quantiles).chain([("max", histogram.max() as f64)]);
    let (mut names, mut values) = ("  latency".to_owned(), " ".repeat(9));
    for (name, value) in all {
        let _ = write!(names, " {name:>9}");
        let _ = write!(values, " {:>9}", human(value));
    }
    format!("{names}\n{values}\n")
}

/// One row for each 1, 2 and 5 times a power of ten.
fn bars(histogram: &Histogram<u64>) -> String {
    let edges: Vec<u64> =
        (2..12).flat_map(|power| [1, 2, 5].map(|step| step * 10_u64.pow(power))).collect();
    let total = histogram.len() as f64;
    let mut rows: Vec<(u64, f64)> = Vec::new();
    let mut from = 0;
    for to in edges {
        let share = histogram.count_between(from, to - 1) as f64 / total;
        rows.push((to, share));
        from = to;
    }
    let seen = |(_, share): &(u64, f64)| *share >= SHARE_MIN;
    let first = rows.iter().position(seen).unwrap_or(0);
    let last = rows.iter().rposition(seen).unwrap_or(0);
    let widest = rows.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    let mut text = String::new();
    for (to, share) in &rows[first..=last] {
        let eighths = (share / widest * BAR_WIDTH * 8.0).round() as usize;
        let bar = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
        let line = format!("  < {:<7} {:>6.2} %  {bar}", human(*to as f64), share * 100.0);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn costs(summary: &Summary<'_>, tally: &Tally) -> String {
    let mut text = String::new();
    let cost =
        |seconds: f64, per_message: f64| format!("{seconds:.2} s, {per_message:.2} µs a message");
    let own = cost(summary.self_cpu_s, summary.self_cpu_us_per_message);
    row(&mut text, "generator CPU", &format!("{own}, {:.0} % busy", tally.busy * 100.0));
    if let (Some(cpu), Some(each), Some(server)) =
        (summary.server_cpu_s, summary.server_cpu_us_per_message, tally.server)
    {
        let busy = format!("busiest thread {:.0} %", server.busy * 100.0);
        row(&mut text, "server CPU", &format!("{}, {busy}", cost(cpu, each)));
    }
    if let Some(bytes) = summary.server_rss_anon_bytes {
        row(&mut text, "server memory", &format!("{} KiB RssAnon", grouped(bytes / 1024)));
    }
    text
}

fn idle_memory(idle: &Idle) -> String {
    let mut text = String::new();
    let kib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} KiB", grouped(bytes / 1024)))
    };
    let Some(each) = idle.bytes_per_connection else {
        row(
            &mut text,
            "idle",
            "its memory is not known: give --server-pid, and 2 connections or more",
        );
        return text;
    };
    row(
        &mut text,
        "idle",
        &format!(
            "{each:.0} bytes per connection: the growth of RssAnon beyond the first {} connections",
            grouped(idle.first_connections as u64)
        ),
    );
    row(
        &mut text,
        "RssAnon",
        &format!(
            "{} before, {} after the first {}, {} after all, {} at the end",
            kib(idle.rss_anon_before_bytes),
            kib(idle.rss_anon_after_first_bytes),
            grouped(idle.first_connections as u64),
            kib(idle.rss_anon_after_all_bytes),
            kib(idle.rss_anon_at_end_bytes)
        ),
    );
    text
}

fn remarks(plan: &Plan, summary: &Summary<'_>, tally: &Tally) -> String {
    let mut text = String::new();
    if let Some(rate) = plan.rate
        && summary.late as f64 / rate > BEHIND_S_MIN
    {
        let _ = writeln!(
            text,
            "\nIt fell behind: {} messages, {:.2} s of the schedule, were due at the end and not \
             sent.",
            grouped(summary.late),
            summary.late as f64 / rate
        );
    }
    if tally.silent > 0 {
        let _ = writeln!(
            text,
            "\n{} connections had waited for a reply for more than a second at the end.",
            grouped(tally.silent as u64)
        );
    }
    if summary.bottleneck {
        let _ = writeln!(
            text,
            "\nThe generator was the bottleneck: the server can do more. Give it more --threads, \
             on cores that the server does not use."
        );
    }
    if summary.interrupted {
        let _ = writeln!(text, "\nInterrupted: this is what was measured until then.");
    }
    text
}

/// A time in the unit that suits it.
pub(crate) fn human(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        ..1e3 => return format!("{nanoseconds:.0} ns"),
        ..1e6 => (nanoseconds / 1e3, "µs"),
        ..1e9 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// A number in groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{bars, grouped, human};
    use crate::tally::histogram;

    #[rstest]
    #[case(812.0, "812 ns")]
    #[case(1_234.0, "1.23 µs")]
    #[case(45_600.0, "45.6 µs")]
    #[case(100_000.0, "100 µs")]
    #[case(2_000_000.0, "2.00 ms")]
    #[case(12.5e9, "12.5 s")]
    fn times_are_readable(#[case] nanoseconds: f64, #[case] text: &str) {
        assert_eq!(human(nanoseconds), text);
    }

    #[rstest]
    #[case(0, "0")]
    #[case(999, "999")]
    #[case(1_000, "1,000")]
    #[case(12_345_678, "12,345,678")]
    fn numbers_are_grouped(#[case] number: u64, #[case] text: &str) {
        assert_eq!(grouped(number), text);
    }

    #[test]
    fn bars_show_where_the_messages_are() {
        let mut latency = histogram();
        latency.record_n(30_000, 75).unwrap();
        latency.record_n(150_000, 25).unwrap();
        let text = bars(&latency);
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(rows[0].starts_with("  < 50.0 µs  75.00 %  ████"), "{text}");
        assert_eq!(rows[1], "  < 100 µs    0.00 %", "{text}");
        assert!(rows[2].starts_with("  < 200 µs   25.00 %  ████"), "{text}");
    }
}
