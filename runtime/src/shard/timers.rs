//! When a connection must be looked at again, and what is due when that time has come.
//!
//! Each connection has one timer. It is set to the earliest deadline and, when it fires, looks
//! which one that is by now: a message costs no timer operation, only a store of the time.

use super::entry::{Entry, Phase, Protocol};
use super::settings::Settings;

/// What the clock asks of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// The handshake took too long.
    Handshake,
    /// The peer was silent for half the idle timeout.
    Ping,
    /// The peer was silent for the idle timeout.
    Idle,
    /// The peer reads nothing of what waits for it, or, in the end of its session, too slowly.
    Stalled,
    /// A message began too long ago.
    MessageAge,
    /// A timer or the deadline that the handler set.
    Own,
    /// The protocol has a clock of its own: a call, a ping, a shutdown.
    Protocol,
    /// The closing handshake, or the peer's FIN, did not come in time.
    Close,
}

/// The earliest tick at which [`due`] may answer something; `None` if never. `own`: when something
/// that the handler set is due.
pub(crate) fn deadline(entry: &Entry, settings: &Settings, own: Option<u64>) -> Option<u64> {
    match entry.phase {
        Phase::Head | Phase::Deciding => Some(entry.mark_ms + settings.handshake_timeout_ms),
        Phase::Open => {
            let clock = clock(entry, settings);
            let ours =
                [silence(entry, settings), stall(entry, settings), age(entry, settings), clock];
            ours.into_iter().chain([own]).flatten().min()
        }
        Phase::Leaving => Some(entry.mark_ms + patience_of_iproto(settings)),
        // Who takes nothing at all of his backlog has less time than who takes it slowly.
        Phase::Closing | Phase::Lingering if entry.outbox.queued() > 0 => {
            Some(entry.mark_ms.min(entry.heard_ms + settings.progress_timeout_ms))
        }
        Phase::Closing | Phase::Lingering => Some(entry.mark_ms),
        // Its client has a timer of its own, which goes over several connections.
        Phase::Dialing | Phase::Dead => None,
    }
}

/// What the clock asks at `now_ms`.
pub(crate) fn due(entry: &Entry, settings: &Settings, own: Option<u64>, now_ms: u64) -> Due {
    let over = |deadline: Option<u64>| deadline.is_some_and(|at| at <= now_ms);
    match entry.phase {
        _ if !over(deadline(entry, settings, own)) => Due::Nothing,
        Phase::Head | Phase::Deciding => Due::Handshake,
        Phase::Open if over(stall(entry, settings)) => Due::Stalled,
        Phase::Open if over(age(entry, settings)) => Due::MessageAge,
        Phase::Open if over(own) => Due::Own,
        Phase::Open if over(clock(entry, settings)) => Due::Protocol,
        Phase::Open if now_ms < entry.heard_ms + settings.idle_timeout_ms => Due::Ping,
        Phase::Open => Due::Idle,
        Phase::Closing | Phase::Lingering if entry.outbox.queued() > 0 => Due::Stalled,
        Phase::Closing | Phase::Lingering => Due::Close,
        Phase::Leaving => Due::Stalled,
        Phase::Dialing | Phase::Dead => Due::Nothing,
    }
}

/// How long a shutdown may take; without a limit of its own, as long as any end.
fn patience_of_iproto(settings: &Settings) -> u64 {
    match settings.iproto.shutdown_timeout_ms {
        0 => settings.close_timeout_ms,
        limit => limit,
    }
}

/// The next ping, or the end of patience with a peer that answers none. Raw connections have no
/// ping, so their silence proves nothing; nor does that of a peer that we do not read from.
fn silence(entry: &Entry, settings: &Settings) -> Option<u64> {
    let off = settings.idle_timeout_ms == 0 || entry.flags.held_back();
    if off || !matches!(entry.protocol, Protocol::WebSocket(_)) {
        return None;
    }
    let patience = if entry.flags.pinged() {
        settings.idle_timeout_ms
    } else {
        settings.idle_timeout_ms.div_ceil(2)
    };
    Some(entry.heard_ms + patience)
}

fn stall(entry: &Entry, settings: &Settings) -> Option<u64> {
    entry.outbox.is_blocked().then(|| entry.mark_ms + settings.progress_timeout_ms)
}

fn age(entry: &Entry, settings: &Settings) -> Option<u64> {
    match &entry.protocol {
        Protocol::WebSocket(connection) if !entry.flags.held_back() => {
            connection.message_deadline_ms(&settings.messages)
        }
        Protocol::WebSocket(_) | Protocol::Iproto(_) => None,
        Protocol::Handshake(_) | Protocol::Dialing(_) | Protocol::Raw => None,
    }
}

/// When a state machine that has clocks wants to be polled.
fn clock(entry: &Entry, settings: &Settings) -> Option<u64> {
    entry.iproto()?.deadline_ms(&settings.iproto)
}
