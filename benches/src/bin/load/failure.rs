//! Why the program ends without a report: one sentence, and its exit code.

use std::process::ExitCode;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Failure {
    /// What was asked for cannot be.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2 }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// Something failed on the way.
impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, code: 1 }
    }
}
