//! Vision encoders, connector and decoder as one model.
//!
//! A checkpoint folder becomes a [`Model`] ([`load`]); a conversation with pictures becomes a packed
//! sequence ([`pack`]); a packed sequence becomes an answer ([`generate`]). There is one forward
//! path: training walks the same functions and ends in a loss in place of a sampler.
//!
//! [`parity`] runs the same public functions against reference numbers and says how far off they
//! are, which is how a converted checkpoint is proved, and how this program proves itself.

pub mod config;
pub mod describe;
pub mod error;
pub mod generate;
pub mod in_llm;
pub mod keys;
pub mod load;
pub mod pack;
pub mod parity;
pub mod see;

pub use config::{ModelConfig, VisionConfig};
pub use error::ModelError;
pub use generate::{Answer, Generation, Session};
pub use in_llm::ImagePosition;
pub use load::{LoadModel, LoadedFrom, Model, Network};
pub use pack::{Packed, Prompt};
pub use see::{PictureView, Seen};
