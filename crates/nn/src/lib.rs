//! Layers that several networks share, and the geometry of feature grids.
//!
//! Every linear layer of opabinia is a [`Linear`], every norm a [`LayerNorm`] or [`RmsNorm`], every
//! scaled dot product goes through [`attention`]. That gives weight formats and processor-specific
//! kernels one door to come in by: the layers run the differentiable path on an autodiff device and
//! on GPUs, and the kernels of [`cpu`] when a plain CPU tensor allows it. Both compute the same
//! function.
//!
//! Parameters keep the names and the orientation of published checkpoints (`weight` is
//! `[out, in]`), so loading never transposes.

pub mod activation;
pub mod attention;
pub mod compute;
pub mod conv;
pub mod cpu;
pub mod dropout;
pub mod embedding;
pub mod grad;
pub mod grid;
pub mod linear;
pub mod lora;
pub mod mlp;
pub mod norm;
pub mod packed;
pub mod pca;
pub mod resample;
pub mod rotary;
pub mod trace;

pub use activation::Activation;
pub use attention::{AttentionMask, attention};
pub use compute::ComputeType;
pub use conv::{Conv2d, PatchEmbed};
pub use embedding::Embedding;
pub use grad::cross_entropy;
pub use grid::{FeatureGrid, Grid, Region};
pub use linear::Linear;
pub use lora::{Lora, LoraShape};
pub use mlp::{GatedMlp, Mlp};
pub use norm::{LayerNorm, RmsNorm};
pub use rotary::{Rotary, RotaryScaling};
pub use trace::Trace;
