//! The networks whose steps are measured, and what they are trained on.
//!
//! `benches/peers/training.py` has the same sizes and the same inputs, which are formulas on both
//! sides; weights are exchanged in a file, under the names that the modules of the peer have.

use burn::prelude::*;
use opabinia_connector::{Connector, PictureSize};
use opabinia_image::PixelBatch;
use opabinia_llm::{Decoder, PromptToken};
use opabinia_model::{ModelConfig, Network, PictureInput};
use opabinia_train::engine::parameters;
use opabinia_vision::{Encoder, EncoderSpec};
use opabinia_weights::KeyMap;
use serde_json::{Value, json};

use super::step::Row;
use crate::Fallible;

/// Of the first weights: two processes that build the same network agree about them.
const SEED: u64 = 20;

/// Rows of the decoder's batch.
const ROWS: usize = 8;
/// Tokens of each.
const TOKENS: usize = 256;

/// Pictures of the small model's batch, one in each row.
const PICTURES: usize = 16;
/// Tokens before a picture and after it; those after it are trained.
const TEXT: [usize; 2] = [8, 32];
/// Width of the small model's vision transformer, whose queries, keys and values the peer fuses.
const VIT_WIDTH: usize = 128;

/// Something to train.
pub(super) struct Subject {
    pub(super) config: ModelConfig,
    pub(super) network: Network,
    pub(super) rows: Vec<Row>,
    /// From module paths to the peer's names.
    pub(super) names: KeyMap,
    /// Tokens or pictures of a step.
    pub(super) amount: f64,
}

/// A Llama of 20 million parameters on rows of text.
pub(super) fn decoder(smoke: bool) -> Fallible<Subject> {
    let (hidden, layers, tokens) = if smoke { (48, 2, 32) } else { (384, 8, TOKENS) };
    let config = ModelConfig::from_json(&json!({
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": 6, "num_key_value_heads": 6,
        "intermediate_size": if smoke { 128 } else { 1024 }, "vocab_size": 8192,
        "max_position_embeddings": TOKENS, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
    }))?;
    let vocabulary = config.decoder.vocab;
    let row = |row: usize| Row {
        tokens: (0..tokens)
            .map(|i| PromptToken::Text(id(row * tokens + i, vocabulary)))
            .collect(),
        trained: (0..tokens).map(|i| i > 0).collect(),
        pictures: Vec::new(),
    };
    Ok(Subject {
        network: network(&config)?,
        rows: (0..ROWS).map(row).collect(),
        names: KeyMap::new().rename(r"^decoder\.", ""),
        amount: (ROWS * tokens) as f64,
        config,
    })
}

/// The small Cambrian of `recipes/small`: a SigLIP, a ConvNeXt, the SVA before and inside a decoder.
pub(super) fn sva(smoke: bool) -> Fallible<Subject> {
    let config = ModelConfig::from_json(&small_cambrian())?;
    let network = network(&config)?;
    let vocabulary = config.decoder.vocab;
    let pictures = if smoke { 2 } else { PICTURES };
    let rows = (0..pictures).map(|row| picture_row(&network, vocabulary, row));
    Ok(Subject {
        rows: rows.collect::<Fallible<_>>()?,
        names: sva_names(),
        amount: pictures as f64,
        network,
        config,
    })
}

/// `config.json` of the model that `recipes/small/align.toml` makes.
fn small_cambrian() -> Value {
    json!({
        "model_type": "cambrian_llama", "hidden_size": 192, "num_hidden_layers": 6,
        "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 512,
        "vocab_size": 1536, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
        "mm_vision_tower_aux_list": ["opabinia/small-siglip-128", "opabinia/small-convnext-256"],
        "mm_vision_tower_aux_token_len_list": [64, 1024],
        "mm_projector_type": "sva", "image_token_len": 64, "vision_hidden_size": 128,
        "query_num_list": [64], "num_query_group": 1, "connector_depth": 2,
        "connector_only": false,
        "num_of_vision_sampler_layers": 2, "start_of_vision_sampler_layers": 0,
        "stride_of_vision_sampler_layers": 3,
    })
}

/// Drops the names of variants, and joins what the peer computes as one product.
fn sva_names() -> KeyMap {
    let d = VIT_WIDTH;
    KeyMap::new()
        .rename(r"\.(network|kind)\.", ".")
        .rename(r"\.(Siglip|ConvNext|Sva|Joint|Mlp)\.", ".")
        .part(r"\.attn\.q\.", ".attn.qkv.", 0..d)
        .part(r"\.attn\.k\.", ".attn.qkv.", d..2 * d)
        .part(r"\.attn\.v\.", ".attn.qkv.", 2 * d..3 * d)
}

/// A network with random weights that train.
fn network(config: &ModelConfig) -> Fallible<Network> {
    let device = Device::flex().autodiff();
    device.seed(SEED);
    let mut encoders = Vec::new();
    let mut connector = None;
    if let Some(vision) = &config.vision {
        for name in &vision.encoders {
            let spec = EncoderSpec::parse(name)?;
            encoders.push(Encoder::random(&spec, &device)?);
        }
        let widths: Vec<usize> = encoders.iter().map(Encoder::width).collect();
        let wanted = vision.connector(&widths, config.decoder.hidden)?;
        connector = Some(Connector::new(&wanted, &device));
    }
    let network = Network {
        encoders,
        connector,
        decoder: Decoder::new(&config.decoder, &device),
    };
    // Reading a parameter draws its values: here, in order, before several threads do.
    drop(parameters::values(&network, |_| true));
    Ok(network)
}

/// Token `i` of a text that never ends.
fn id(i: usize, vocabulary: usize) -> u32 {
    (i * 31 % vocabulary) as u32
}

/// Text, a picture, and text about it.
fn picture_row(network: &Network, vocabulary: usize, row: usize) -> Fallible<Row> {
    let [before, after] = TEXT;
    let text = |i| PromptToken::Text(id(row * (before + after) + i, vocabulary));
    let mut tokens: Vec<PromptToken> = (0..before).map(text).collect();
    tokens.push(PromptToken::Image);
    tokens.extend((before..before + after).map(text));
    let pixels = network.encoders.iter().map(|encoder| {
        let side = encoder.side() as usize;
        pixels(row, side)
    });
    let size = PictureSize {
        width: 256,
        height: 256,
    };
    Ok(Row {
        trained: (0..tokens.len()).map(|i| i > before).collect(),
        tokens,
        pictures: vec![PictureInput::Pixels(pixels.collect::<Fallible<_>>()?, size)],
    })
}

/// Numbers between −1 and 1, another pattern for every picture.
fn pixels(picture: usize, side: usize) -> Fallible<PixelBatch> {
    let value = |i: usize| ((picture * 97 + i * 37) % 255) as f32 / 127.5 - 1.0;
    let values = (0..3 * side * side).map(value).collect();
    Ok(PixelBatch::from_raw(1, side, side, values)?)
}
