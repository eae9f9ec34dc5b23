//! Samples on their way to training: reading, checking, label masks, batches, cached features.
//!
//! Pillar 4 of Cambrian-1 (arXiv 2406.16860, section 4) from its reader's side. A [`SampleFile`]
//! finds the [`Sample`]s of a file, a [`Masker`] turns one into tokens and says which of them are
//! trained, [`order`] says which samples make a step, and a
//! [`FeatureStore`] keeps what frozen encoders saw. What cannot be used is counted and listed
//! ([`Faults`]), never replaced by something else.

pub mod error;
pub mod faults;
pub mod features;
pub mod jsonl;
pub mod mask;
pub mod mixture;
pub mod names;
pub mod nesting;
pub mod offsets;
pub mod order;
pub mod pictures;
mod positioned;
pub mod sample;
pub mod set;
pub mod start;
pub mod stream;

pub use error::{DataError, Place, SampleError};
pub use faults::{Fault, FaultKind, FaultLimit, Faults};
pub use features::{EncoderKey, FeatureStore, Features, Key, KeyParts, Precision};
pub use jsonl::SampleFile;
pub use mask::{Masker, Run, Tokenized, written};
pub use names::stays_inside;
pub use offsets::Offsets;
pub use order::{Modality, SampleLength};
pub use pictures::PictureFolder;
pub use sample::{Sample, Turn, parse_json};
pub use set::SampleSet;

pub use opabinia_llm::Role;
