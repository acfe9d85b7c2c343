//! What the protocols receive into: memory that grows with the bytes that arrived.

mod assembly;
mod body;
mod memory;

pub(crate) use assembly::Assembly;
pub use body::{Body, Direct};
pub use memory::{HeapMemory, Memory};
