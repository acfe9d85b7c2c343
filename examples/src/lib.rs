//! Small programs that people copy: see the `examples` folder of this crate.
