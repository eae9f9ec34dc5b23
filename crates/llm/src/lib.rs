//! Decoders, tokenizers, chat templates and sampling; knows nothing of pictures.

pub mod cache;
pub mod config;
pub mod decoder;
pub mod sampler;
pub mod sentencepiece;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use cache::KvCache;
pub use config::{DecoderConfig, DecoderConfigError, DecoderFamily};
pub use decoder::{Decoder, LayerHook, NoHook, Step};
pub use sampler::{Sampler, SamplingError, SamplingOptions};
pub use stream::{StopReason, TextStream};
pub use template::{
    ChatTemplate, Conversation, IMAGE_PLACEHOLDER, Rendered, Role, TemplateChoice, TemplateError,
    TemplateHints, Turn,
};
pub use tokenizer::{PlacedToken, PromptToken, SpecialTokens, Tokenizer, TokenizerError};
