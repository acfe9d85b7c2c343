//! Small programs that people copy: see the `examples` folder of this crate.

/// The guides, so that what they show is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/go-iproto.md")]
mod go_iproto {}
