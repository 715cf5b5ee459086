//! The C interface of qlora as it is: `qlora.h` in Rust's words. The crate `qlora` makes it safe.
#![allow(non_camel_case_types)]
mod declarations;
pub use declarations::*;
