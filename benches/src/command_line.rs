//! How the programs here take their flags: a mistake is one sentence.

use std::process::ExitCode;

use clap::Parser;

/// The flags that this process was started with.
///
/// # Errors
/// The exit code, once help, the version or what is wrong has been printed.
pub fn parse<F: Parser>(program: &str) -> Result<F, ExitCode> {
    F::try_parse().map_err(|error| {
        if !error.use_stderr() {
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        // The first line is the sentence, and goes on in the second where flags are listed; what
        // follows is advice on how to get help.
        let text = error.to_string();
        let sentence: Vec<_> =
            text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        eprintln!("{program}: {}", sentence.join(" ").trim_start_matches("error: "));
        ExitCode::from(2)
    })
}
