//! The sim reactor.
