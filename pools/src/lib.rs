//! Memory.
#![allow(unsafe_code)]


/// An exclusive window of pool memory.
#[derive(Debug)]
pub struct Lease(());
/// A window of pool memory that may be cloned and only read.
#[derive(Debug, Clone)]
pub struct Shared(());
