//! Pretraining: the small encoders, decoder and tokenizer that the two-stage recipe starts from.
//!
//! Cambrian-1 (arXiv 2406.16860) compares vision encoders by what supervised them. To ask the same
//! question of models that are trained here from nothing, there is one task for each answer:
//!
//! | task | learns from | encoder |
//! |---|---|---|
//! | [`ContrastiveTask`] | pictures with captions, sigmoid loss | SigLIP's transformer, ConvNeXt |
//! | [`MaeTask`] | pictures alone, masked patches | DINOv2's transformer |
//! | [`DenseTask`] | pictures with maps of what is where | ConvNeXt, SigLIP's transformer |
//! | [`LanguageTask`] | texts, the next token | a Llama-shaped decoder |
//!
//! All of them are [`Task`](crate::Task)s of the one training loop, and each ends in `finish`, which
//! writes an ordinary checkpoint folder of the real family: no other part of the program knows that
//! the network was trained here.
//!
//! Every random choice draws from a stream of its own, named by the seed and what it is for
//! ([`start`] for first values), so results do not depend on the number of threads.

pub mod contrastive;
pub mod dense;
pub mod documents;
pub mod encoder;
mod folder;
pub mod labels;
pub mod language;
pub mod loss;
pub mod mae;
mod mimetic;
pub mod pictures;
pub mod start;
pub mod tokenizer;
pub mod transformer;

pub use contrastive::{ContrastiveModel, ContrastiveOptions, ContrastiveTask};
pub use dense::{DenseModel, DenseTask};
pub use encoder::{EncoderChoice, EncoderTask};
pub use labels::{LabelDescription, LabelFiles};
pub use language::{DecoderSizes, FirstWeights, LanguageTask};
pub use mae::{MaeModel, MaeOptions, MaeTask};
pub use pictures::{PictureFiles, Pictures};
pub use tokenizer::{TokenizerOptions, train_tokenizer};
pub use transformer::TransformerSizes;
