//! Vision encoders and their registry: pixels to one feature grid per encoder.
//!
//! A vision encoder is a file and a row. The file holds a network, the reader of its published
//! `config.json`, and its key map ([`clip`], [`siglip`], [`dinov2`], [`convnext`]); the row of the
//! [`registry`] holds what no checkpoint says: under which names it is known, which of its layers
//! gives the features, how its pictures are prepared, its licence.
//!
//! ```text
//! name ─ EncoderSpec::parse ─▶ spec ┐
//! folder ─ EncoderConfig::read ─▶ config ┴─ load_encoder ─▶ Encoder ─ encode(pixels) ─▶ FeatureGrid
//!                                                              └─ save ─▶ folder of the same style
//! ```
//!
//! What this crate decides:
//! - **Configurations choose, names do not.** Architecture and key layout come from the
//!   `config.json` beside the weights, read with the defaults of the library that wrote it; a name
//!   only chooses the row, and its `-res<R>` and `-interp<N>` suffixes the input side and the token
//!   grid.
//! - **What is not needed is not built.** Layers after the selected one, pooling heads and text
//!   towers are never created, and the load report lists their tensors as ignored.
//! - **One forward path.** Training, inference and the comparison with the reference implementation
//!   of Cambrian-1 (arXiv 2406.16860) run the same code; a [`Trace`](opabinia_nn::Trace) keeps intermediate
//!   tensors.
//!
//! No encoder resizes pictures: [`Encoder::preprocessor`] says how they must be prepared, and the
//! image crate does it.

pub mod clip;
pub mod config;
pub mod convnext;
pub mod dinov2;
mod encoder;
mod error;
mod json;
mod load;
pub mod registry;
mod save;
pub mod siglip;
mod small;
mod spec;
pub mod transformer;

pub use config::EncoderConfig;
pub use encoder::{Encoder, pixel_tensor};
pub use error::VisionError;
pub use load::{load_encoder, load_with_config};
pub use registry::{EncoderDescription, EncoderEntry, Family, REGISTRY, describe};
pub use spec::{EncoderSpec, Select};
