//! The tables that say what is trained, from what.
//!
//! Keys of the connector are those of the released `config.json` files, so that a recipe and the
//! model that comes out of it say the same thing in the same words.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Folders;
use crate::pretrain::FirstWeights;

/// `[model]`: what the two stages of the recipe start from. Either a whole model folder, or parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTable {
    /// A whole model: a folder like the released ones, such as stage 1 writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// A language model's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<PathBuf>,
    /// Connector weights alone, as stage 1 of the reference saves them (`mm_projector.bin`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// Name of the chat template; the checkpoint's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Longest packed sequence, visual tokens included; the checkpoint's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// The vision encoders. Beside `from`, only where their weights are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoders: Vec<EncoderSource>,
    /// The connector to build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<ConnectorTable>,
}

/// `[[model.encoders]]`: one vision encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSource {
    /// Published name, suffixes included.
    pub name: String,
    /// Folder or file of its weights; under its own name on the hub where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Tokens that its features are resampled to, a square number
    /// (`mm_vision_tower_aux_token_len_list`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
}

/// `[model.connector]`: keys of the released `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorTable {
    /// `sva`, `linear`, `mlpNx_gelu`, `identity`, `se_mlp` or `CAbstractor`.
    pub mm_projector_type: String,
    /// Visual tokens of a square picture, a square number.
    pub image_token_len: usize,
    /// Width of the SVA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision_hidden_size: Option<usize>,
    /// Queries of each group, square numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_num_list: Option<Vec<usize>>,
    /// Layers of the SVA before the decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector_depth: Option<usize>,
    /// Whether there are no SVA layers inside the decoder.
    #[serde(default)]
    pub connector_only: bool,
    /// SVA layers inside the decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_of_vision_sampler_layers: Option<usize>,
    /// The decoder layer that the first of them follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_of_vision_sampler_layers: Option<usize>,
    /// Decoder layers from one to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride_of_vision_sampler_layers: Option<usize>,
    /// `joint` or `sep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sva_layer_type: Option<String>,
    /// Layer of a CLIP encoder whose output is taken.
    #[serde(default = "select_layer")]
    pub mm_vision_select_layer: i64,
    /// Where the reference assumes visual tokens to begin; where the template puts the picture of
    /// a first question where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_position: Option<usize>,
}

fn select_layer() -> i64 {
    -2
}

/// `[encoder]`: the vision encoder that a pretraining stage makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderTable {
    /// Its name in the registry, which says how pictures are prepared.
    pub name: String,
    /// `config.json` of its family; the registry's architecture where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Weights to start from; random ones where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

/// `[text]`: the text tower of contrastive pretraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTable {
    /// Folder with the `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Width.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens of a caption that are read.
    pub max_tokens: usize,
}

/// `[contrastive]`: the sigmoid loss (SigLIP, arXiv 2303.15343).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveTable {
    /// Width of the space in which pictures and captions meet.
    pub embedding: usize,
    /// First temperature; its logarithm is learned.
    pub temperature: f64,
    /// First bias.
    pub bias: f64,
}

impl Default for ContrastiveTable {
    fn default() -> Self {
        Self {
            embedding: 128,
            temperature: 10.0,
            bias: -10.0,
        }
    }
}

/// `[mae]`: masked autoencoding (arXiv 2111.06377).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaeTable {
    /// Share of the patches that are hidden.
    pub mask_ratio: f64,
    /// Whether each patch's pixels are normalised before they are compared.
    pub normalize_pixels: bool,
    /// Width of the reconstruction network.
    pub decoder_width: usize,
    /// Its layers.
    pub decoder_layers: usize,
    /// Its heads.
    pub decoder_heads: usize,
}

impl Default for MaeTable {
    fn default() -> Self {
        Self {
            mask_ratio: 0.75,
            normalize_pixels: true,
            decoder_width: 64,
            decoder_layers: 2,
            decoder_heads: 4,
        }
    }
}

/// `[dense]`: what is where in the pictures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseTable {
    /// Folder of the label maps of `data.images`: the pictures' names, ending in `.png`, and a
    /// `labels.json` that says what they mean.
    pub labels: PathBuf,
    /// The same for `data.validation_images`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_labels: Option<PathBuf>,
    /// Planes that the encoder learns; all if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planes: Vec<String>,
}

/// `[lexical]`: what visual tokens are to say, and in which words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LexicalTable {
    /// Folder of the label maps of `data.images`, as in `[dense]`; or a list with one for each of `data.files`.
    pub labels: Folders,
    /// The same for `data.validation_images`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_labels: Option<PathBuf>,
    /// Planes of the maps whose classes are words that the decoder knows.
    #[serde(default)]
    pub words: Vec<String>,
    /// Planes whose classes are steps from what one word means to what another one does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scales: BTreeMap<String, [String; 2]>,
    /// Planes that mark one cell of each thing, and the word for it. A token with a marked cell says what
    /// that cell shows, and nothing of the cells around it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, String>,
}

/// `[decoder]`: the sizes of a decoder that is trained from nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderTable {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width inside the feed-forward layers.
    pub intermediate: usize,
    /// Positions that the model is made for.
    pub max_position: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Whether the head is the embedding table.
    #[serde(default)]
    pub tied_head: bool,
    /// What its attention starts as: `normal` or `mimetic`.
    #[serde(default)]
    pub attention: FirstWeights,
    /// Tokens of a training row.
    pub row_length: usize,
}

fn rope_theta() -> f64 {
    10_000.0
}

/// `[tokenizer]`: the tokenizer that is trained with a decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTable {
    /// Tokens in all, markers included.
    pub vocabulary: usize,
    /// Chat template whose markers are tokens.
    pub template: String,
}
