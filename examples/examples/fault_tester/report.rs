//! What an attack is, what came of it, and how that is judged and shown.

use std::fmt;
use std::time::Duration;

use serde_json::json;

use crate::peer::Target;

/// A way to attack a server.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What it does, and the rule that is broken.
    pub(crate) about: &'static str,
    pub(crate) rule: Rule,
    pub(crate) run: Run,
}

/// How an attack is made.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// By doing this.
    Do(fn(&Target) -> Outcome),
    /// By saying this in an open session.
    Say(fn() -> Vec<u8>),
}

/// What a server has to do about an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A standard says that it is to be refused.
    Must,
    /// A wise server bounds it, and none has to.
    Wise,
    /// Nothing but to live.
    Live,
}

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// Answered with an HTTP status of an error.
    Refused(u16),
    /// Sent a close frame, with this code if it has one.
    Closed(Option<u16>),
    /// Ended the connection without a word.
    Ended,
    /// Stopped reading.
    StoppedReading,
    /// Took it, as if it were in order.
    Took,
    /// Waits on.
    Waits,
    /// It does not speak what the attack is made with.
    NotSpoken,
    /// It was not attacked: there was no connection, or no session, to do it with.
    NotTried,
}

/// What came of an attack.
pub(crate) struct Outcome {
    pub(crate) did: Did,
    pub(crate) after: Duration,
    /// Figures of it.
    pub(crate) note: String,
}

/// How what the server did is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It defended itself, or lived where that is all.
    Held,
    /// It did nothing about it in this time, and nothing says that it must.
    Open,
    /// It took what must be refused, or serves nobody any more.
    Broken,
    /// Nothing is known: the attack could not begin.
    NotTried,
}

/// An attack and what came of it.
pub(crate) struct Finding {
    attack: Attack,
    outcome: Outcome,
    is_served: bool,
    pub(crate) verdict: Verdict,
}

impl Finding {
    pub(crate) fn of(attack: &Attack, outcome: Outcome, is_served: bool) -> Self {
        let acted = !matches!(outcome.did, Did::Took | Did::Waits);
        let verdict = match attack.rule {
            _ if !is_served => Verdict::Broken,
            _ if outcome.did == Did::NotTried => Verdict::NotTried,
            _ if acted => Verdict::Held,
            Rule::Live => Verdict::Held,
            Rule::Wise => Verdict::Open,
            Rule::Must => Verdict::Broken,
        };
        Self { attack: *attack, outcome, is_served, verdict }
    }

    pub(crate) fn print(&self) {
        let Outcome { did, after, note } = &self.outcome;
        let served = if self.is_served { "" } else { "; honest clients are not served any more" };
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        println!(
            "{:<11}{:<26}{did} after {:.2} s{note}{served}",
            self.verdict.to_string(),
            self.attack.name,
            after.as_secs_f64(),
        );
    }

    fn to_json(&self) -> serde_json::Value {
        let Outcome { did, after, note } = &self.outcome;
        let code = match did {
            Did::Refused(code) => Some(*code),
            Did::Closed(code) => *code,
            _ => None,
        };
        json!({
            "attack": self.attack.name,
            "about": self.attack.about,
            "did": did.to_string(),
            "code": code,
            "after_ms": after.as_millis() as u64,
            "note": note,
            "honest_clients_served": self.is_served,
            "verdict": self.verdict.to_string(),
        })
    }
}

/// The end of the report: all of it as JSON, or a line that sums it up.
pub(crate) fn print_end(findings: &[Finding], address: &str, as_json: bool) {
    if as_json {
        let rows: Vec<_> = findings.iter().map(Finding::to_json).collect();
        println!("{:#}", json!({ "address": address, "attacks": rows }));
        return;
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    println!(
        "\n{} attacks on {address}: {} held, {} open, {} broken, {} not tried",
        findings.len(),
        count(Verdict::Held),
        count(Verdict::Open),
        count(Verdict::Broken),
        count(Verdict::NotTried),
    );
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Open => "open",
            Self::Broken => "broken",
            Self::NotTried => "not tried",
        })
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "refused with {status}"),
            Self::Closed(Some(code)) => write!(f, "closed with {code}"),
            Self::Closed(None) => f.write_str("closed without a code"),
            Self::Ended => f.write_str("ended the connection"),
            Self::StoppedReading => f.write_str("stopped reading"),
            Self::Took => f.write_str("took it"),
            Self::Waits => f.write_str("waits on"),
            Self::NotSpoken => f.write_str("does not speak it"),
            Self::NotTried => f.write_str("had no connection for it"),
        }
    }
}
