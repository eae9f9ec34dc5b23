//! Decoders, tokenizers, chat templates and sampling; knows nothing of pictures.

pub mod sampler;
pub mod sentencepiece;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use sampler::{Sampler, SamplingError, SamplingOptions};
pub use stream::{StopReason, TextStream};
pub use template::{ChatTemplate, Conversation, Role, TemplateError, TemplateHints, Turn};
pub use tokenizer::{PromptToken, SpecialTokens, Tokenizer, TokenizerError};
