//! What can go wrong while training.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A file could not be read or written.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// `read`, `write`, ….
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Samples could not be read, or too many are bad.
    #[error(transparent)]
    Data(#[from] opabinia_data::DataError),
    /// The recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] opabinia_model::ModelError),
    /// A vision encoder refused.
    #[error(transparent)]
    Vision(#[from] opabinia_vision::VisionError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] opabinia_llm::TokenizerError),
    /// Weights could not be read or written.
    #[error(transparent)]
    Weights(#[from] opabinia_weights::WeightsError),
    /// The optimizer's state could not be read or written.
    #[error(transparent)]
    Optimizer(#[from] crate::optimizer::OptimizerError),
    /// A picture could not be read.
    #[error(transparent)]
    Image(#[from] opabinia_image::ImageError),
    /// A loss or a gradient is not finite.
    #[error("step {step} stopped the run: {what}; a bundle that runs the step again is in {}", bundle.display())]
    NotFinite {
        /// Which step, from 1.
        step: u64,
        /// What was found.
        what: String,
        /// Where the bundle is.
        bundle: PathBuf,
        /// Why the bundle could not be written, if so.
        #[source]
        source: Option<Box<TrainError>>,
    },
    /// Something else that a person must change.
    #[error("{0}")]
    Refused(String),
}
