//! Vision encoders, connector and decoder as one model.
//!
//! A checkpoint folder becomes a [`Model`] ([`load`]); a conversation with pictures becomes a packed
//! sequence ([`pack`]); a packed sequence becomes an answer ([`generate`]). There is one forward
//! path ([`forward`]): training walks the same functions and ends in a [`loss`] in place of a sampler.
//!
//! [`parity`] runs the same public functions against reference numbers and says how far off they
//! are, which is how a converted checkpoint is proved, and how this program proves itself.

pub mod assemble;
mod companions;
pub mod config;
pub mod describe;
pub mod error;
pub mod fit;
pub mod forward;
pub mod generate;
mod gguf;
pub mod gradients;
mod guess;
pub mod in_llm;
mod initialise;
pub mod keys;
pub mod load;
pub mod loss;
pub mod measure;
pub mod pack;
pub mod parity;
pub mod save;
pub mod see;
pub mod session;
mod write_config;

pub use assemble::{EncoderPart, ModelParts};
pub use config::{ModelConfig, VisionConfig};
pub use error::ModelError;
pub use generate::{Answer, Generation};
pub use gradients::{TrainingGradients, training_gradients};
pub use guess::MAX_GUESSES;
pub use in_llm::ImagePosition;
pub use load::{LoadModel, LoadedFrom, Model, Network};
pub use loss::{
    LossOptions, LossOutput, PictureInput, TrainingRow, connect_pictures, training_loss,
};
pub use pack::{Packed, Prompt};
pub use save::{EncoderPlacement, SaveOptions};
pub use see::{FeaturesOf, Look, PictureView, Seen};
pub use session::Session;
