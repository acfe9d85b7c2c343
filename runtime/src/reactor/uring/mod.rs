//! The uring reactor.
