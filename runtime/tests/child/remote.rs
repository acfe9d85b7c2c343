//! A server in a child process, from the side of the test: it says something first, answers each
//! command with a line, and ends when it is told to.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The server in its process.
pub(crate) struct Remote {
    pub(crate) process: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it said when it was ready.
    pub(crate) greeting: String,
}

impl Remote {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let commands = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let greeting = said(&mut lines);
        Self { process, commands, lines, greeting }
    }

    /// The numbers with which it answers "look".
    pub(crate) fn look<const COUNT: usize>(&mut self) -> [u64; COUNT] {
        self.commands.write_all(b"look\n").unwrap();
        let line = said(&mut self.lines);
        let figures: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        figures.try_into().unwrap_or_else(|_| panic!("{line}"))
    }

    pub(crate) fn stop(mut self) {
        self.commands.write_all(b"stop\n").unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Remote {
    /// After a failed assertion nothing is left behind; after [`stop`](Self::stop) it is gone.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The next line that the child meant for us; the test harness writes others.
fn said(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    loop {
        let line = lines.next().expect("the child lives").unwrap();
        if let Some((_, words)) = line.split_once("@ ") {
            return words.to_owned();
        }
    }
}
