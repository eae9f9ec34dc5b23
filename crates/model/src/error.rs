//! What can go wrong between a checkpoint folder and an answer.

use std::path::PathBuf;

use opabinia_connector::ConnectorError;
use opabinia_image::PrepareError;
use opabinia_llm::config::DecoderConfigError;
use opabinia_llm::{SamplingError, TemplateError, TokenizerError};
use opabinia_nn::Grid;
use opabinia_vision::VisionError;
use opabinia_weights::WeightsError;

/// An error of this crate; its sources say more.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Two models that cannot be compared token by token.
    #[error("the models have vocabularies of {reference} and {other} tokens: nothing to compare")]
    OtherVocabulary {
        /// Tokens of the one.
        reference: usize,
        /// Tokens of the other.
        other: usize,
    },
    /// Two models that make different prompts of the same conversation.
    #[error("the models make different prompts of the same conversation: nothing to compare")]
    OtherPrompt,
    /// A file of the model folder cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of a model folder cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the model folder is not what it should be.
    #[error("cannot understand `{}`", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A key of a configuration is missing or has the wrong type.
    #[error("`{key}` in `{}` cannot be used", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key; `.` if it is missing.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A key of `config.json` has a value that fits no model.
    #[error("`{key}` in config.json is {found}, but {expected}")]
    Config {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Metadata of a GGUF file from which no model can be built.
    #[error("`{key}` in the GGUF file is {found}, but {expected}")]
    Gguf {
        /// The key, or the tensor.
        key: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A GGUF file without a tokenizer beside it.
    #[error(
        "no tokenizer beside the GGUF file in `{}`: the one inside it is not read; put \
         `tokenizer.json` and `tokenizer_config.json` (or `tokenizer.model`) of the model that it \
         was made from there",
        .folder.display()
    )]
    GgufTokenizer {
        /// The model folder.
        folder: PathBuf,
    },
    /// The decoder's part of the configuration is wrong.
    #[error("the configuration does not describe a language model that can be built")]
    Decoder(#[from] DecoderConfigError),
    /// The connector's part of the configuration is wrong, or it cannot take a picture.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// A vision encoder cannot be found, built or loaded.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// A checkpoint cannot be read or does not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A model is neither on this machine nor can it be fetched.
    #[error(transparent)]
    Hub(#[from] opabinia_weights::hub::HubError),
    /// The tokenizer cannot be read or used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// No chat template fits.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Sampling options are impossible, or the model produced no usable scores.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A picture cannot be preprocessed.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// An encoder is as wide as the checkpoint's connector does not expect.
    #[error(
        "vision encoder {index} (`{name}`) gives features of width {found}, but the connector of \
         this checkpoint takes {expected}; the weights given for it belong to another encoder"
    )]
    EncoderWidth {
        /// Position in `mm_vision_tower_aux_list`.
        index: usize,
        /// Its published name.
        name: String,
        /// Width of its features.
        found: usize,
        /// Width that the checkpoint was trained with.
        expected: usize,
    },
    /// Weights were given for an encoder that the model does not have.
    #[error(
        "weights were given for the vision encoder `{name}`, which this model does not have; it \
         has {}", .encoders.join(", ")
    )]
    NoSuchEncoder {
        /// What they were given for.
        name: String,
        /// Published names, behind their positions.
        encoders: Vec<String>,
    },
    /// An encoder's weights are nowhere.
    #[error(
        "no weights for the vision encoder `{name}`: not inside the checkpoint, not in `towers/` of \
         its folder, and not on the hub; say where they are with `--encoder-weights {name}=PATH`"
    )]
    EncoderWeights {
        /// Its published name.
        name: String,
        /// Why the hub has none.
        #[source]
        source: opabinia_weights::hub::HubError,
    },
    /// An encoder that nobody could read back from the model's own files.
    #[error(
        "vision encoder {index} (`{name}`) is of another size than the published one, which only a \
         `config.json` of its own can say; write it below `towers/` instead"
    )]
    UnpublishedInside {
        /// Position in `mm_vision_tower_aux_list`.
        index: usize,
        /// Its published name.
        name: String,
    },
    /// A picture for a model without eyes.
    #[error(
        "this model has no vision encoders (`mm_vision_tower_aux_list` is not in its config.json), \
         so it cannot take pictures; ask without one"
    )]
    TextOnly,
    /// Placeholders and pictures differ in number.
    #[error(
        "the prompt has {placeholders} image placeholder(s) (`<image>`) for {pictures} picture(s); \
         they must be as many"
    )]
    Placeholders {
        /// `<image>` in the prompt.
        placeholders: usize,
        /// Pictures given.
        pictures: usize,
    },
    /// The prompt does not fit into the context.
    #[error(
        "the prompt takes {tokens} tokens, {visual} of them visual, but the model takes {limit}; \
         shorten the question or the history, or show fewer pictures"
    )]
    TooLong {
        /// Tokens of the packed prompt.
        tokens: usize,
        /// Visual tokens among them.
        visual: usize,
        /// The model's limit.
        limit: usize,
    },
    /// A prompt without a single token.
    #[error("the prompt is empty: the tokenizer made no token of it")]
    EmptyPrompt,
    /// An id that the embedding table does not have.
    #[error(
        "the tokenizer made token {id}, but the embedding table has {vocab} rows; tokenizer and \
         weights belong to different models"
    )]
    TokenId {
        /// The token.
        id: u32,
        /// Rows of the table.
        vocab: usize,
    },
    /// The constant image position and the prompt do not go together.
    #[error(
        "in-LLM layers act on {tokens} tokens from position {start} (`image_position` in \
         config.json), but the prompt has only {length}; use `--image-position actual`"
    )]
    ImagePosition {
        /// Where they would start.
        start: usize,
        /// How many visual tokens there are.
        tokens: usize,
        /// Length of the packed prompt.
        length: usize,
    },
    /// A picture does not come as the encoders take it.
    #[error(
        "a picture was given {found} inputs for {expected} vision encoders; prepare it, or cache its \
         features, for exactly the encoders of this model"
    )]
    PictureInputs {
        /// Inputs given.
        found: usize,
        /// Encoders of the model.
        expected: usize,
    },
    /// Features are on another grid than the connector takes.
    #[error(
        "the features given for vision encoder {encoder} are on a {found} grid, but \
         `mm_vision_tower_aux_token_len_list` says {expected}; they were made for another model"
    )]
    FeatureGrid {
        /// Position in `mm_vision_tower_aux_list`.
        encoder: usize,
        /// Their grid.
        found: Grid,
        /// The configuration's.
        expected: Grid,
    },
    /// There is nothing to learn from a micro-batch.
    #[error("none of the {rows} row(s) of a micro-batch has a token that is trained")]
    NothingTrained {
        /// Rows of the micro-batch.
        rows: usize,
    },
    /// Tensor data could not be read back from the device.
    #[error("cannot read results back from the device: {0}")]
    Device(String),
}
