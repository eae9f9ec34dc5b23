//! A recipe file as a whole, and the stages that it can be for.

use serde::{Deserialize, Serialize};

use super::model_tables::{
    ContrastiveTable, DecoderTable, DenseTable, EncoderTable, LexicalTable, MaeTable, ModelTable,
    TextTable, TokenizerTable,
};
use super::run_tables::{
    BatchTable, DataTable, LogTable, LoraTable, MemoryTable, OptimizerTable, SaveTable,
    ScheduleTable,
};
use crate::groups::Part;

/// What a recipe trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Before stage 1: the connector learns the decoder's words for what label maps show.
    Lexical,
    /// Stage 1: the connector trains, encoders and decoder are frozen.
    Align,
    /// Stage 2: connector and decoder train; encoders are frozen or not.
    Instruct,
    /// A vision encoder from pictures and their captions.
    Contrastive,
    /// A vision encoder from pictures alone, by masked autoencoding.
    Mae,
    /// A vision encoder from pictures and maps of what is where in them.
    Dense,
    /// A decoder from text.
    Language,
}

impl Stage {
    /// Its name in recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lexical => "lexical",
            Self::Align => "align",
            Self::Instruct => "instruct",
            Self::Contrastive => "contrastive",
            Self::Mae => "mae",
            Self::Dense => "dense",
            Self::Language => "language",
        }
    }

    /// The parts that its model has.
    #[must_use]
    pub fn parts(self) -> &'static [Part] {
        match self {
            Self::Align | Self::Instruct => &[
                Part::Encoders,
                Part::Projector,
                Part::Sampler,
                Part::Newline,
                Part::Embeddings,
                Part::Decoder,
                Part::Head,
            ],
            Self::Lexical => &[Part::Projector, Part::Sampler],
            Self::Contrastive | Self::Mae | Self::Dense => &[Part::Encoders, Part::Auxiliary],
            Self::Language => &[Part::Embeddings, Part::Decoder, Part::Head],
        }
    }

    /// Whether a part trains unless the recipe says otherwise.
    #[must_use]
    pub fn trains(self, part: Part) -> bool {
        match self {
            Self::Align => matches!(part, Part::Projector | Part::Sampler | Part::Newline),
            Self::Instruct => part != Part::Encoders,
            Self::Lexical | Self::Contrastive | Self::Mae | Self::Dense | Self::Language => true,
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A whole recipe file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub name: String,
    pub stage: Stage,
    #[serde(default = "seed")]
    pub seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrastive: Option<ContrastiveTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mae: Option<MaeTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<DenseTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lexical: Option<LexicalTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerTable>,
    pub data: DataTable,
    pub batch: BatchTable,
    pub optimizer: OptimizerTable,
    #[serde(default)]
    pub schedule: ScheduleTable,
    #[serde(default)]
    pub memory: MemoryTable,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraTable>,
    #[serde(default)]
    pub save: SaveTable,
    #[serde(default)]
    pub log: LogTable,
}

/// The reference trainer's.
fn seed() -> u64 {
    42
}
