//! How the programs here take their flags, and how they end: what went wrong is one sentence.

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

/// How a program ends: a problem is one sentence with its name before it, and the exit code 1.
pub fn end(program: &str, ended: Result<(), String>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{program}: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The one of `all` that has this name; `what` they are, in the plural.
///
/// # Errors
/// There is none: the names that there are.
pub fn named<T>(
    all: impl IntoIterator<Item = T>,
    what: &str,
    name_of: impl Fn(&T) -> &'static str,
    name: &str,
) -> Result<T, String> {
    let mut names = Vec::new();
    for each in all {
        if name_of(&each) == name {
            return Ok(each);
        }
        names.push(name_of(&each));
    }
    Err(format!("the {what} are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn who_is_not_there_is_told_who_is() {
        let find = |name| named(["a", "b"], "letters", |letter| letter, name);
        assert_eq!(find("b"), Ok("b"));
        assert_eq!(find("c"), Err("the letters are a, b".to_owned()));
    }
}
