//! Whole hioload servers in a simulated network, seed by seed.
//!
//! The scenarios of the project itself, on the public test kit [`hioload::testkit::sim`]. The
//! program `simulate` runs them; the tests run some of them and check what they reach.

pub mod explore;
pub mod scenarios;
