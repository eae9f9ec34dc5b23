//! Matrix products with packed weights: `y = x · weightᵀ`, the product of every linear layer.
//!
//! Activations are f32. Weights are f32, bf16, int8 or int4 ([`Format`]), packed once in the order
//! in which every code path reads them ([`Packed`]); bf16 and f32 matrices that lie row after row in
//! a file are packed a piece at a time instead ([`Weights::Rows`]). The processor decides at run time
//! which [`Path`] is taken; tests force each path that the machine has, and compare it with f64.
//!
//! One layout serves all: panels of 16 columns, each of them rows of 64 bytes, a row holding four
//! bytes of consecutive `k` per column. That is one AVX-512 register, two of AVX2, four of NEON, and
//! 16 such rows are one tile of AMX. Weights are read once from the first to the last byte both for
//! one row of activations (bound by memory) and for many (bound by arithmetic).
//!
//! f32 activations stay f32 wherever the weight is f32 or bf16, unless the caller says
//! [`Activations::Rounded`]: what a model computes by default does not depend on the processor beyond
//! the order of sums. Integer weights always mean integer activations; whoever chose them chose that.
//!
//! A row's result does not depend on how many rows are computed with it, as long as they are few
//! ([`FEW_ROWS`]): whoever checks several guessed tokens at once gets the very scores that one at a
//! time gives.

#![allow(
    unsafe_code,
    reason = "loads in kernels, functions compiled for a processor feature, shared output"
)]

mod activations;
mod bytes;
mod format;
pub mod limits;
mod micro;
mod multiply;
mod pack;
mod path;
mod quantise;
mod transpose;

pub use format::Format;
pub use multiply::{Activations, FEW_ROWS, Options, Weights, multiply};
pub use pack::{PackError, Packed, Rows};
pub use path::{Path, PathError};

#[cfg(test)]
mod tests;
