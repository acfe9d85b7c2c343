//! The derive macros for packing: use them from `hioload_protocol::iproto`, whose feature `derive`
//! brings them in.
//!
//! A struct is packed as its fields in order, each in default mode, or in BER mode if it is marked
//! with `#[iproto(ber)]`. The mode that the struct itself is packed in does not reach them.
//!
//! ```
//! use hioload_protocol::iproto::{Pack, Unpack, pack, unpack};
//!
//! #[derive(Debug, PartialEq, Pack, Unpack)]
//! struct Greeting<'a> {
//!     #[iproto(ber)]
//!     count: u32,
//!     name: &'a str, // borrowed from the body that it is unpacked from
//! }
//!
//! let greeting = Greeting { count: 258, name: "world" };
//! let body = pack(&greeting)?;
//! assert_eq!(body, b"\x82\x02\x05\0\0\0world");
//! assert_eq!(unpack::<Greeting>(&body)?, greeting);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Users of `hioload` have both in `hioload::iproto`, where derived code names that module instead.
//! `#[iproto(crate = "path")]` on the struct names another path to the module `iproto`, for a crate
//! that re-exports it.
//!
//! Enums and unions have no form:
//!
//! ```compile_fail
//! #[derive(hioload_protocol::iproto::Pack)]
//! enum Either { Left(u8), Right(u8) }
//! ```
//!
//! and a type without a form cannot be a field:
//!
//! ```compile_fail
//! #[derive(hioload_protocol::iproto::Pack)]
//! struct Sized { len: usize }
//! ```

mod expand;

use expand::Home;
use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Pack` for a struct; see [the crate](crate).
#[proc_macro_derive(Pack, attributes(iproto))]
pub fn derive_pack(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::pack(&input, &Home::Protocol).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Implements `Unpack` for a struct; see [the crate](crate).
#[proc_macro_derive(Unpack, attributes(iproto))]
pub fn derive_unpack(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::unpack(&input, &Home::Protocol).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// As [`derive_pack`], for `hioload::iproto`.
#[proc_macro_derive(RuntimePack, attributes(iproto))]
pub fn derive_runtime_pack(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::pack(&input, &Home::Runtime).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// As [`derive_unpack`], for `hioload::iproto`.
#[proc_macro_derive(RuntimeUnpack, attributes(iproto))]
pub fn derive_runtime_unpack(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::unpack(&input, &Home::Runtime).unwrap_or_else(|error| error.to_compile_error()).into()
}
