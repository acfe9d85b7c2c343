//! Measurements of hioload.
