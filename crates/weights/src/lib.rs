//! Checkpoint files to modules and back: formats, shards, key maps, load reports, hub cache.
//!
//! A checkpoint is a set of named tensors in one or several files; a module is a tree of named
//! parameters. This crate carries values from one to the other and knows nothing of what they
//! mean:
//!
//! ```text
//! hub::resolve ─▶ folder ─ Checkpoint::open ─▶ Checkpoint ─ load_into(&KeyMap) ─▶ module + LoadReport
//!                          module ─ CheckpointWriter::add(&KeyMap) ─ write_folder ─▶ folder
//! ```
//!
//! Decisions:
//! - Files are memory-mapped. A tensor that is stored in the wanted type is handed to Burn without
//!   a copy; the others are converted in parallel, and their file pages are given back at once, so
//!   that loading needs little more memory than the loaded weights.
//! - Modules keep the shapes and the names of the checkpoints (linear weights are `[out, in]`), so
//!   nothing is ever transposed, and a [`KeyMap`] is a short table of regular expressions.
//! - Every parameter of the module must be found, with the right shape, before the first byte of
//!   data is read; all that is wrong is reported at once. Tensors that nobody asked for are listed
//!   in the [`LoadReport`] and can be made an error.
//! - No pickle is ever executed: PyTorch files are parsed by the `pytorch-reader` crate, which
//!   builds tensors from a fixed list of known constructors and refuses everything else.

#[cfg(target_endian = "big")]
compile_error!("checkpoint files are little-endian and are used in place");

mod checkpoint;
mod dtype;
mod error;
mod gguf;
pub mod hub;
mod inspect;
mod key_map;
mod load;
mod mapped;
mod packed;
mod pytorch_file;
mod replace;
mod report;
mod safetensors_file;
mod save;
mod zip_guard;

pub use checkpoint::{Checkpoint, TensorInfo};
pub use dtype::{Dtype, FloatDtype, WeightDtype};
pub use error::{LoadFailure, Mismatch, Problem, WeightsError};
pub use gguf::GgufError;
pub use inspect::{ParameterInfo, parameters};
pub use key_map::{FileKey, KeyMap};
pub use load::{LoadOptions, load_into};
pub use report::LoadReport;
pub use save::{CheckpointWriter, SaveReport, save_module};
