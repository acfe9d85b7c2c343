//! The subscribers of one server, in a process of their own: a process that had those of all
//! servers would need more descriptors than most may have.
//!
//! The two sides speak in lines. One that is told to the process asks for a turn, and each of its
//! own is a sample, or why there is none; the first is empty, when everybody is connected.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use crate::load::{Load, Sample};

/// What such a process is told.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Where the server listens
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) addr: SocketAddr,
    /// The process of the server
    #[arg(long, value_name = "PID")]
    pub(crate) server: u32,
    /// How many there are
    #[arg(long, value_name = "NUMBER")]
    pub(crate) subscribers: u16,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes: u16,
    /// Publications of a turn
    #[arg(long, value_name = "NUMBER")]
    pub(crate) publications: u16,
}

const PROBLEM: &str = "problem: ";

/// Subscribes, and answers every line of the standard input with a turn.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    let answered = serve(flags);
    if let Err(problem) = &answered {
        println!("{PROBLEM}{problem}");
    }
    answered.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn serve(flags: &Flags) -> Result<(), String> {
    let mut load =
        Load::open(flags.addr, usize::from(flags.subscribers), usize::from(flags.bytes))?;
    println!();
    for line in io::stdin().lines() {
        line.map_err(|error| error.to_string())?;
        println!("{}", load.turn(flags.server, flags.publications)?.line());
    }
    Ok(())
}

/// That process, as the one that measures sees it; it ends with this.
pub(crate) struct Subscribers {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Subscribers {
    /// Starts it, and waits until everybody is connected.
    pub(crate) fn start(flags: &Flags) -> Result<Self, String> {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["subscribe", "--addr", &flags.addr.to_string()]);
        command.args(["--server", &flags.server.to_string()]);
        command.args(["--subscribers", &flags.subscribers.to_string()]);
        command.args(["--bytes", &flags.bytes.to_string()]);
        command.args(["--publications", &flags.publications.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| format!("the subscribers do not start: {error}"))?;
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut subscribers = Self { child, answers };
        subscribers.answer()?;
        Ok(subscribers)
    }

    /// A turn of the server.
    pub(crate) fn turn(&mut self) -> Result<Sample, String> {
        let requests = self.child.stdin.as_mut().expect("it is piped");
        writeln!(requests).map_err(|error| format!("the subscribers are gone: {error}"))?;
        let line = self.answer()?;
        Sample::from_line(&line).ok_or_else(|| format!("{line:?} is no sample"))
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => return Err("the subscribers are gone".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        match line.trim_end().strip_prefix(PROBLEM) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(line),
        }
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        // It has nothing to lose, and an error means that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
