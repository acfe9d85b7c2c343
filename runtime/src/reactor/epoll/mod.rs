//! The epoll reactor.
