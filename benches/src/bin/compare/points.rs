//! The points at which the servers are measured, by name.

use hioload_benches::command_line;

/// What the clients do at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// They send and wait for the echo.
    Echo {
        /// Messages under way on every connection.
        in_flight: u32,
        /// Payload bytes of a message.
        bytes: u32,
        /// What makes them send.
        pace: Pace,
    },
    /// They stay connected and send nothing; memory is measured.
    Idle,
}

/// What makes a client send its next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A reply.
    Replies,
    /// A reply, and nobody sleeps while it waits: the clients, and the servers that can.
    Spinning,
    /// Time: so many messages per second on all connections together, whatever comes back. 0 stands
    /// for half of what the slowest server does when replies set the pace, which is measured first.
    Schedule {
        /// Messages.
        per_s: u32,
    },
}

/// A point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) connections: u32,
    pub(crate) work: Work,
    /// Whether it is one of the few for a quick look.
    pub(crate) is_quick: bool,
}

const KIB: u32 = 1024;

/// All of them.
pub(crate) const POINTS: [Point; 16] = [
    echo("c1", 1, 1, 20).quick(),
    echo("c1spin", 1, 1, 20).paced(Pace::Spinning),
    echo("c16", 16, 1, 20),
    echo("c256", 256, 1, 20).quick(),
    echo("o16", 16, 1, 20).paced(Pace::Schedule { per_s: 0 }),
    echo("o256", 256, 1, 20).paced(Pace::Schedule { per_s: 0 }),
    echo("c16x512", 16, 1, 512),
    echo("c256x512", 256, 1, 512),
    echo("c1000", 1000, 1, 20),
    echo("c5000", 5000, 1, 20),
    echo("p16", 256, 16, 20),
    echo("k16c16", 16, 1, 16 * KIB).quick(),
    echo("k16c256", 256, 1, 16 * KIB),
    echo("k128", 16, 1, 128 * KIB),
    echo("m1", 8, 1, KIB * KIB),
    Point { name: "idle", connections: 10_000, work: Work::Idle, is_quick: false },
];

const fn echo(name: &'static str, connections: u32, in_flight: u32, bytes: u32) -> Point {
    let work = Work::Echo { in_flight, bytes, pace: Pace::Replies };
    Point { name, connections, work, is_quick: false }
}

impl Point {
    const fn quick(self) -> Self {
        Self { is_quick: true, ..self }
    }

    /// The same with something else that makes clients send.
    pub(crate) const fn paced(self, pace: Pace) -> Self {
        let work = match self.work {
            Work::Echo { in_flight, bytes, .. } => Work::Echo { in_flight, bytes, pace },
            Work::Idle => Work::Idle,
        };
        Self { work, ..self }
    }

    /// What makes clients send; `None` if they do not.
    pub(crate) const fn pace(&self) -> Option<Pace> {
        match self.work {
            Work::Echo { pace, .. } => Some(pace),
            Work::Idle => None,
        }
    }

    /// Whether nobody is to sleep.
    pub(crate) fn spins(&self) -> bool {
        self.pace() == Some(Pace::Spinning)
    }

    /// What it is, for people.
    pub(crate) fn title(&self) -> String {
        let connections = match self.connections {
            1 => "1 connection".to_owned(),
            many => format!("{many} connections"),
        };
        match self.work {
            Work::Idle => format!("{}: {connections} that send nothing", self.name),
            Work::Echo { in_flight, bytes, pace } => {
                let (name, bytes) = (self.name, size(bytes));
                match pace {
                    Pace::Replies => {
                        format!("{name}: {connections}, {in_flight} in flight on each, {bytes}")
                    }
                    Pace::Spinning => format!(
                        "{name}: {connections}, {in_flight} in flight on each, {bytes}, nobody sleeps"
                    ),
                    Pace::Schedule { per_s: 0 } => {
                        format!("{name}: {connections}, {bytes}, half of what the slowest can do")
                    }
                    Pace::Schedule { per_s } => {
                        format!("{name}: {connections}, {bytes}, {per_s} per second in all")
                    }
                }
            }
        }
    }
}

/// The point of this name.
pub(crate) fn point(name: &str) -> Result<Point, String> {
    command_line::named(POINTS, "points", |point| point.name, name)
}

fn size(bytes: u32) -> String {
    match bytes {
        bytes if bytes % (KIB * KIB) == 0 => format!("{} MiB", bytes / (KIB * KIB)),
        bytes if bytes % KIB == 0 => format!("{} KiB", bytes / KIB),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rstest::rstest;

    use super::{POINTS, Pace, Work, point};

    #[test]
    fn every_point_has_a_name_and_a_load_of_its_own() {
        let names: HashSet<_> = POINTS.iter().map(|point| point.name).collect();
        assert_eq!(names.len(), POINTS.len());
        let loads: HashSet<_> =
            POINTS.iter().map(|point| format!("{} {:?}", point.connections, point.work)).collect();
        assert_eq!(loads.len(), POINTS.len());
        assert_eq!(POINTS.iter().filter(|point| point.is_quick).count(), 3);
    }

    #[rstest]
    #[case("c1", "c1: 1 connection, 1 in flight on each, 20 B")]
    #[case("c1spin", "c1spin: 1 connection, 1 in flight on each, 20 B, nobody sleeps")]
    #[case("c256x512", "c256x512: 256 connections, 1 in flight on each, 512 B")]
    #[case("p16", "p16: 256 connections, 16 in flight on each, 20 B")]
    #[case("k16c16", "k16c16: 16 connections, 1 in flight on each, 16 KiB")]
    #[case("m1", "m1: 8 connections, 1 in flight on each, 1 MiB")]
    #[case("o16", "o16: 16 connections, 20 B, half of what the slowest can do")]
    #[case("idle", "idle: 10000 connections that send nothing")]
    fn a_point_says_what_it_is(#[case] name: &str, #[case] title: &str) {
        assert_eq!(point(name).unwrap().title(), title);
    }

    #[test]
    fn a_schedule_says_how_fast_it_is() {
        let point = point("o256").unwrap().paced(Pace::Schedule { per_s: 70_000 });
        assert_eq!(point.title(), "o256: 256 connections, 20 B, 70000 per second in all");
    }

    #[test]
    fn an_unknown_point_names_the_known_ones() {
        let problem = point("c2").unwrap_err();
        assert!(problem.starts_with("the points are c1, c1spin, c16,"), "{problem}");
        assert!(matches!(point("idle").unwrap().work, Work::Idle));
    }
}
